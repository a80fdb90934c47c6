"""What is evaluated: networks with their trained weights, and exported files with their manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from deploykit.artifact import MANIFEST, require_unchanged
from deploykit.errors import ArtifactError, UsageError
from deploykit.latency.subjects import find_subjects, how_to_export, short_names
from deploykit.network import LoadedNetwork, load_network, recipe_for
from deploykit.recipe import Recipe, bundled_recipes, default_recipe, load_recipe, project_recipe, recipe_from_table
from deploykit.records import Artifact
from deploykit.targets.table import TARGETS, require

Named: TypeAlias = str | Path | Recipe | LoadedNetwork | Artifact


@dataclass(frozen=True)
class Subject:
    """One network, or one exported ``artifact`` of it (then ``network`` is None).

    ``path`` is the file that was named, None for a recipe. ``name`` is the recipe's, for an artifact with target and
    precision; where that is not one of a kind, and for a checkpoint, it is the shortest end of the path that is.
    """

    name: str
    recipe: Recipe
    network: LoadedNetwork | None = None
    artifact: Artifact | None = None
    path: Path | None = None


def resolve(
    named: Sequence[Named], *, checkpoint: Path | None = None, checkpoint_key: str | None = None
) -> tuple[Subject, ...]:
    """Return what is named, in that order: recipes, checkpoints, exported files and folders of them.

    ``checkpoint`` gives the weights of the one recipe that is named. Without a name a checkpoint's recipe is that of
    ``deploykit.toml``, else the one that its keys belong to; that network comes first. With nothing named at all the
    recipe of ``deploykit.toml``, else the default one, is taken.

    Raises UsageError for a name that is nothing of these or comes twice, RecipeError, CheckpointError, ArtifactError
    or TargetError for what cannot be loaded or run here.
    """
    recipes = [one for one in named if _is_recipe(one)]
    found: list[Subject] = []
    if checkpoint is not None and len(recipes) > 1:
        raise UsageError(
            "A checkpoint belongs to one recipe.",
            where="--checkpoint",
            found=f"{len(recipes)} recipes",
            expected="one recipe, or none where the checkpoint's keys tell it",
        )
    if not recipes and (checkpoint is not None or not named):
        found.append(_unnamed(checkpoint, checkpoint_key))
    for one in named:
        if isinstance(one, LoadedNetwork):
            found.append(replace(_network(one), path=one.checkpoint_path))
        elif _is_recipe(one):
            recipe = one if isinstance(one, Recipe) else load_recipe(str(one))
            found.append(_network(load_network(recipe, checkpoint=checkpoint, key=checkpoint_key)))
        else:
            found.extend(_files(one, checkpoint_key))
    return _told_apart(found)


def _is_recipe(one: Named) -> bool:
    named = isinstance(one, (str, Path)) and (str(one) in bundled_recipes() or Path(one).suffix == ".toml")
    return named or isinstance(one, Recipe)


def _unnamed(checkpoint: Path | None, key: str | None) -> Subject:
    here = Path.cwd()
    recipe = recipe_for(project_recipe(here), checkpoint, default_recipe(here), key)
    return _network(load_network(recipe, checkpoint=checkpoint, key=key))


def _network(network: LoadedNetwork) -> Subject:
    return Subject(network.recipe.name, network.recipe, network=network)


def _files(one: Named, key: str | None) -> list[Subject]:
    if isinstance(one, Artifact):
        return [_exported(require_unchanged(one))]
    path = Path(str(one))
    exported = path.name == MANIFEST or path.is_dir() or path.suffix.lower() in {row.suffix for row in TARGETS.values()}
    if exported and path.exists():
        subjects = find_subjects([path])
        bare = [subject.path for subject in subjects if subject.artifact is None]
        if bare:
            raise ArtifactError(
                "The file has no manifest, so nothing says which images it takes.",
                where=str(bare[0]),
                found=f"no {MANIFEST} beside it that describes it",
                expected="an artifact that deploykit export wrote",
            )
        return [_exported(subject.artifact) for subject in subjects if subject.artifact is not None]
    if path.is_file():
        return [replace(_unnamed(path, key), path=path)]
    if exported or path.suffix:
        raise ArtifactError(
            "There is no such file.",
            where=str(path),
            found="nothing",
            expected="an exported file, a checkpoint, or a folder of them",
            next_step=how_to_export(path),
        )
    raise UsageError(
        "This is nothing that can be evaluated.",
        found=str(one),
        expected="a bundled recipe ("
        + ", ".join(bundled_recipes())
        + "), a .toml file, a checkpoint, an exported file, or a folder of those",
        next_step="list the recipes with: deploykit recipes",
    )


def _exported(artifact: Artifact) -> Subject:
    require(artifact.plan.target)
    recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
    name = f"{artifact.recipe} {artifact.plan.target} {artifact.plan.precision}"
    return Subject(name, recipe, artifact=artifact, path=artifact.path)


def _told_apart(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    keys = [one.name if one.path is None else str(one.path.resolve()) for one in subjects]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise UsageError("The same thing is given twice.", found=", ".join(twice), expected="each once")
    paths = [one.path for one in subjects if one.path is not None]
    short = dict(zip(paths, short_names(paths), strict=True))
    names = [one.name for one in subjects]
    return tuple(
        replace(one, name=short[one.path]) if one.path and (one.network or names.count(one.name) > 1) else one
        for one in subjects
    )
