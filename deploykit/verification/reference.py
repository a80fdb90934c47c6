"""What a file is compared with: the network of its checkpoint, found by its hash, or another file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from deploykit.artifact import MANIFEST
from deploykit.checkpoint.load import sha256_file
from deploykit.errors import CheckpointError, RecipeError, UsageError
from deploykit.network import LoadedNetwork, build_network, load_network, recipe_for
from deploykit.recipe import Output, Recipe, bundled_recipes, load_recipe, project_recipe, recipe_from_table
from deploykit.records import Artifact
from deploykit.targets.base import Runtime
from deploykit.verification.bind_inputs import fed
from deploykit.verification.bind_outputs import OutputBinding, bind_outputs
from deploykit.verification.exported import ExportedFile
from deploykit.verification.records import InputBinding, ReferenceRecord
from deploykit.verify.reference import Outputs, reference_outputs
from deploykit.verify.samples import Sample, read_back
from deploykit.vocab import InputKind


class Reference(Protocol):
    """What gives the values that a file should have."""

    @property
    def record(self) -> ReferenceRecord:
        """What it is."""
        ...

    def outputs(self, samples: Sequence[Sample], recipe: Recipe) -> tuple[Outputs, ...]:
        """Return its outputs by the recipe's names, (1, C, H, W), one dictionary per sample."""
        ...


@dataclass(frozen=True)
class NetworkReference:
    """The training form of a checkpoint, in float64."""

    network: LoadedNetwork

    @property
    def record(self) -> ReferenceRecord:
        """The checkpoint."""
        return ReferenceRecord(
            "checkpoint", self.network.checkpoint_path, "PyTorch, float64", self.network.checkpoint_sha256
        )

    def outputs(self, samples: Sequence[Sample], recipe: Recipe) -> tuple[Outputs, ...]:
        """Return the float64 outputs. Raises CaptureError where the network cannot compute them."""
        return reference_outputs(self.network.module, recipe, samples)


@dataclass(frozen=True)
class FileReference:
    """Another file, open in its runtime."""

    file: ExportedFile
    runtime: Runtime
    inputs: tuple[InputBinding, ...]
    bindings: tuple[OutputBinding, ...]

    @property
    def record(self) -> ReferenceRecord:
        """The file and what computes it."""
        return ReferenceRecord("file", self.file.path, self.runtime.name)

    @property
    def takes_pixels(self) -> bool:
        """Whether the preprocessing of an input is inside the file."""
        return any(one.kind is InputKind.IMAGE for one in self.inputs)

    def outputs(self, samples: Sequence[Sample], recipe: Recipe) -> tuple[Outputs, ...]:
        """Return what the file gives, in float32 or as it declares."""
        found = []
        for sample in samples:
            values = self.runtime.run(fed(self.inputs, sample, recipe))
            found.append({one.output.name: one.in_network_order(values[one.file_output]) for one in self.bindings})
        return tuple(found)


def file_outputs_as(
    file: ExportedFile, runtime: Runtime, inputs: tuple[InputBinding, ...], sample: Sample, recipe: Recipe
) -> tuple[OutputBinding, ...]:
    """Return which outputs of ``file`` are which: by their names, else by the shapes of the network's."""
    values = runtime.run(fed(inputs, sample, recipe))
    outputs = recipe.file.outputs
    if values.keys() <= {output.name for output in outputs}:
        given = read_back(values, runtime.outputs)
        expected: Outputs = {
            one.name: _as_scores(np.asarray(given[one.name]), one) for one in outputs if one.name in given
        }
    else:
        expected = reference_outputs(build_network(recipe), recipe, [sample])[0]
    bound, _ = bind_outputs(values, runtime.outputs, expected, recipe, file.path, kind=file.output_kind)
    return bound


def _as_scores(value: NDArray[np.floating], output: Output) -> NDArray[np.floating]:
    """Return an array of the shape of the network's scores for what a file gives, which may be one channel for all."""
    if value.ndim != 4 or value.shape[1] != 1 or len(output.classes) < 2:
        return value
    return np.broadcast_to(value, (value.shape[0], len(output.classes), *value.shape[2:]))


def choose_recipe(
    file: ExportedFile,
    other: ExportedFile | None,
    named: str | Path | Recipe | None,
    checkpoint: Path | None,
    key: str | None,
) -> Recipe:
    """Return the recipe that is named, that of a manifest, or the one that ``checkpoint``'s keys belong to.

    Raises UsageError where nothing tells it, RecipeError or CheckpointError where it cannot be read.
    """
    if isinstance(named, Recipe):
        return named
    if named is not None:
        return load_recipe(named)
    for one in (file, other):
        if one is not None and one.artifact is not None:
            return recipe_from_table(one.artifact.recipe_table, one.path.parent / MANIFEST)
    project = project_recipe(Path.cwd())
    if checkpoint is None and project is None:
        raise UsageError(
            "The file has no manifest, so nothing says what it was made from.",
            where=str(file.path),
            expected="a recipe, a checkpoint, or both",
            next_step="give --recipe NAME and, for weights of your own, --checkpoint FILE",
        )
    return recipe_for(project, checkpoint, "", key)


def find_network(recipe: Recipe, artifact: Artifact | None, checkpoint: Path | None, key: str | None) -> LoadedNetwork:
    """Return the network with the weights that the file was made from.

    For a file with a manifest that is the checkpoint of the hash in it: ``checkpoint``, or one that a recipe of the
    same name here names. Raises CheckpointError where it is not here, or ``checkpoint`` is another one.
    """
    if artifact is None:
        return load_network(recipe, checkpoint=checkpoint, key=key)
    wanted = artifact.checkpoint_sha256
    if checkpoint is not None:
        found = sha256_file(checkpoint)
        if found != wanted:
            raise CheckpointError(
                "The checkpoint is not the one that the file was made from.",
                where=str(checkpoint),
                found=f"sha256 {found}",
                expected=f"sha256 {wanted}, as the manifest says",
                next_step=f"compare with another checkpoint on purpose: --against {checkpoint}",
            )
        return load_network(recipe, checkpoint=checkpoint, key=key or _key(recipe))
    candidates = _candidates(recipe, artifact)
    for path in candidates:
        if path.is_file() and sha256_file(path) == wanted:
            return load_network(recipe, checkpoint=path, key=key or _key(recipe))
    raise CheckpointError(
        "The checkpoint that the file was made from is not here.",
        where=f"{artifact.recipe}: " + (", ".join(str(path) for path in candidates) or "no checkpoint is named"),
        found="another file" if any(path.is_file() for path in candidates) else "nothing",
        expected=f"sha256 {wanted}, as the manifest says",
        next_step="give it with --checkpoint FILE, or compare with another one: --against FILE",
    )


def _key(recipe: Recipe) -> str | None:
    return recipe.file.checkpoint.key if recipe.file.checkpoint else None


def _candidates(recipe: Recipe, artifact: Artifact) -> tuple[Path, ...]:
    """Return where the checkpoint may lie: as the recipe says, from its folder or from here, and the bundled ones."""
    places = [recipe.checkpoint_path()]
    section = recipe.file.checkpoint
    if section is not None and section.path is not None:
        places.append((Path.cwd() / section.path).resolve())
    named: list[str | Path] = [name for name in (artifact.recipe,) if name in bundled_recipes()]
    project = project_recipe(Path.cwd())
    if project is not None:
        named.append(project)
    for one in named:
        try:
            places.append(load_recipe(one).checkpoint_path())
        except RecipeError:
            continue
    return tuple(dict.fromkeys(place for place in places if place is not None))
