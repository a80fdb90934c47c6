"""What a person may point at: a recipe, a checkpoint or an exported file."""

from __future__ import annotations

from pathlib import Path

from deploykit.artifact import MANIFEST
from deploykit.checkpoint.recognise import recognise
from deploykit.errors import ArtifactError, CheckpointError, RecipeError, UsageError
from deploykit.inspection.exported import inspect_file
from deploykit.inspection.network import Size, inspect_network
from deploykit.inspection.records import FileInspection, NetworkInspection
from deploykit.network import LoadedNetwork, recipe_for
from deploykit.recipe import Recipe, bundled_recipes, default_recipe, project_recipe
from deploykit.targets.table import TARGETS
from deploykit.vocab import Convention

_FIRST_BYTES = 4096


def inspect(
    subject: LoadedNetwork | Recipe | Path | str | None = None,
    *,
    convention: Convention | str = Convention.MACS,
    size: Size | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_key: str | None = None,
    ranges: bool = False,
    calibration: Path | str | None = None,
) -> NetworkInspection | FileInspection:
    """Return what ``subject`` is made of and costs in ``convention``.

    A recipe (its name, its path or itself), a checkpoint or a loaded network gives a NetworkInspection, at ``size``
    (height, width); an exported file, its folder or its manifest gives a FileInspection. None takes the project's
    recipe, else the one that ``checkpoint`` belongs to, else the default one. ``ranges`` adds those of a network's
    channels, on photos of the folder ``calibration`` or synthetic portraits. Raises DeploykitErrors that say what was
    found instead.
    """
    if calibration is not None and not ranges:
        raise UsageError("Images are looked at for ranges alone.", where="--calibration", expected="--ranges as well")
    counted = _convention(convention)
    weights = None if checkpoint is None else Path(checkpoint)
    here = Path.cwd()
    if isinstance(subject, (LoadedNetwork, Recipe)):
        found: LoadedNetwork | Recipe = subject
    else:
        path = None if subject is None else _existing_file(subject)
        if path is not None and _is_artifact(path):
            if size is not None or weights is not None or checkpoint_key is not None or ranges:
                raise UsageError(
                    "An exported file is inspected as it is.",
                    where=str(path),
                    found="a size, a checkpoint or --ranges with it",
                    expected="the file alone",
                )
            return inspect_file(path, counted)
        if path is not None:
            if weights is not None:
                raise UsageError(
                    "There are two checkpoints.",
                    found=f"{path} and {weights}",
                    expected="one checkpoint, or a recipe and a checkpoint",
                )
            _require_checkpoint(path)
            subject, weights = None, path
        found = recipe_for(subject or project_recipe(here), weights, default_recipe(here), checkpoint_key)
    return inspect_network(
        found,
        convention=counted,
        size=size,
        checkpoint=weights,
        checkpoint_key=checkpoint_key,
        ranges=ranges,
        calibration=None if calibration is None else Path(calibration),
    )


def _convention(name: Convention | str) -> Convention:
    try:
        return Convention(name)
    except ValueError as error:
        raise UsageError("There is no such convention.", found=str(name), expected=", ".join(Convention)) from error


def _existing_file(named: Path | str) -> Path | None:
    """Return the checkpoint or exported file called ``named``, or None where it is a recipe."""
    path = Path(named)
    if str(named) in bundled_recipes() or path.suffix == ".toml":
        return None
    if not path.exists():
        raise RecipeError(
            "There is no such recipe, checkpoint or exported file.",
            found=str(named),
            expected="a bundled recipe (" + ", ".join(bundled_recipes()) + "), a .toml file, or a file on disk",
            next_step="list the recipes with: deploykit recipes",
        )
    return path


def _is_artifact(path: Path) -> bool:
    suffixes = {row.suffix for row in TARGETS.values()}
    return path.is_dir() or path.name == MANIFEST or path.suffix.lower() in suffixes


def _require_checkpoint(path: Path) -> None:
    try:
        with path.open("rb") as file:
            recognise(file.read(_FIRST_BYTES))
    except OSError as error:
        raise ArtifactError("The file cannot be read.", where=str(path), found=error.strerror or str(error)) from error
    except CheckpointError as error:
        raise ArtifactError(
            "The file is neither a checkpoint nor, by its name, an exported file.",
            where=str(path),
            found=error.found,
            expected="a recipe (.toml), a checkpoint (.pth, .pt, .ckpt, .safetensors), or a file ending in "
            + ", ".join(row.suffix for row in TARGETS.values()),
            next_step="name the checkpoint or the exported file itself",
        ) from error
