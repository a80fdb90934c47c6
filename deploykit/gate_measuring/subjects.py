"""Which artifacts are judged, under which names, by which budgets."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.artifact import MANIFEST, read_artifact, require_artifacts
from deploykit.errors import ArtifactError, UsageError
from deploykit.gate.rules import EQUIVALENCE, HASH, LATENCY_GROWTH
from deploykit.gate_records import COUNTED, MASKS, MEASURED_BY_BENCH, Budget, Measure, Subject
from deploykit.recipe import PROJECT_FILE, Recipe, bundled_recipes, load_recipe, project_file, project_recipe
from deploykit.recipe import recipe_from_table as recipe_of_manifest
from deploykit.records import Artifact
from deploykit.targets.table import TARGETS
from deploykit.vocab import InputKind, Layout, OutputKind


@dataclass(frozen=True)
class Gated:
    """One artifact with the recipe that it is judged by: that of the project today, at the artifact's input size."""

    artifact: Artifact
    subject: Subject
    recipe: Recipe


def find_gated(
    paths: Sequence[Path], output_dir: Path, named: Sequence[str], folder: Path
) -> tuple[tuple[Gated, ...], tuple[str, ...]]:
    """Return the artifacts that ``paths`` name, else those below ``output_dir``, and notes on what was assumed.

    Recipes are those ``named``, that of ``folder``'s ``deploykit.toml`` and the bundled ones, found by name; where none
    has the name, the artifact's own from its manifest stands in.

    Raises:
        ArtifactError: nothing there, no manifest, or a damaged one.
        RecipeError: a recipe that is not valid.
        UsageError: two artifacts that are the same thing, so that no baseline could tell them apart.
    """
    artifacts = [one for path in paths for one in _at(path)] if paths else require_artifacts(output_dir)
    own = [load_recipe(name) for name in named]
    project = project_recipe(folder)
    if project is not None:
        own.append(load_recipe(project))
    by_name = {one.name: one for one in reversed(own)}
    found, notes = [], []
    for artifact in artifacts:
        recipe, note = _recipe(artifact, by_name)
        notes += note
        found.append(Gated(artifact, _subject(artifact), _at_its_size(recipe, artifact)))
    names = [one.subject.name for one in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        alike = [one.subject.path for one in found if one.subject.name == twice[0]]
        raise UsageError(
            "Two artifacts are the same thing, made in two ways.",
            where=", ".join(alike),
            found=f"{twice[0]}, {len(alike)} times",
            expected="one artifact for each combination of recipe, target, precision, size and kinds",
            next_step="name the ones to judge, or remove what is old",
        )
    return tuple(found), tuple(dict.fromkeys(notes))


def _at(path: Path) -> tuple[Artifact, ...]:
    packages = {row.suffix for row in TARGETS.values()}
    if not path.exists():
        raise ArtifactError(
            "There is no such file.", where=str(path), found="nothing", expected="an exported file, or a folder of them"
        )
    if path.is_dir() and path.suffix.lower() not in packages:
        return require_artifacts(path)
    artifact = read_artifact(path)
    if path.name != MANIFEST and artifact.path.resolve() != path.resolve():
        raise ArtifactError(
            "The file has no manifest, so nothing says what it was made from.",
            where=str(path),
            found=f"the manifest beside it is that of {artifact.path.name}",
            expected="an artifact that deploykit export wrote",
        )
    return (artifact,)


def _subject(artifact: Artifact) -> Subject:
    plan = artifact.plan
    return Subject(
        name=stable_name(artifact),
        recipe=artifact.recipe,
        target=plan.target,
        precision=plan.precision,
        content_hash=artifact.content_hash,
        path=artifact.path.as_posix(),
    )


def stable_name(artifact: Artifact) -> str:
    """Return what the artifact is, in words that a change of passes or versions leaves as they are."""
    plan = artifact.plan
    shapes = "+".join("x".join(map(str, shape)) for shape in plan.input_shapes)
    words = [artifact.recipe, plan.target.value, plan.precision.value, shapes]
    words += [plan.input_kind.value] if plan.input_kind is not InputKind.TENSOR else []
    words += [plan.output_kind.value] if plan.output_kind is not OutputKind.LOGITS else []
    words += [plan.layout.value] if plan.layout is not Layout.NCHW else []
    words += ["integer-io"] if plan.quantization is not None and plan.quantization.integer_io else []
    return " ".join(words)


def _recipe(artifact: Artifact, by_name: dict[str, Recipe]) -> tuple[Recipe, list[str]]:
    if artifact.recipe in by_name:
        return by_name[artifact.recipe], []
    if artifact.recipe in bundled_recipes():
        return load_recipe(artifact.recipe), []
    recipe = recipe_of_manifest(artifact.recipe_table, artifact.path.parent / MANIFEST)
    return recipe, [
        f"no recipe called {artifact.recipe} is here: the one in the manifest of {artifact.path.name} is taken, with "
        "budgets and tolerances as they were at the export; name the recipe with --recipe"
    ]


def _at_its_size(recipe: Recipe, artifact: Artifact) -> Recipe:
    """Return ``recipe`` at the input size of the artifact, where it has an image input of another one."""
    shapes = artifact.plan.input_shapes
    for item, shape in zip(recipe.file.inputs, shapes, strict=False):
        if item.kind == "image" and item.shape != shape and len(shape) == 4:
            return recipe.with_size(*shape[-2:])
    return recipe


def budgets_of(gated: Sequence[Gated], folder: Path) -> tuple[Budget, ...]:
    """Return the budgets of the artifacts' recipes, each for its own artifacts alone, and those of the project."""
    recipes = {one.recipe.name: one.recipe for one in gated}
    found = []
    for name, recipe in recipes.items():
        for section in recipe.file.budgets:
            own = section.record(recipe.path.name)
            found.append(Budget(**{**own.__dict__, "recipes": (name,)}))
    project = project_file(folder)
    return (*found, *(one.record(PROJECT_FILE) for one in (project.budgets if project else ())))


def from_here(path: Path) -> str:
    """Return ``path`` relative to the current folder where it lies below that, with forward slashes."""
    here = Path.cwd()
    absolute = path.absolute()
    return (absolute.relative_to(here) if absolute.is_relative_to(here) else path).as_posix()


def commands_for(gated: Gated, evaluated_with: str) -> dict[str, str]:
    """Return what measures each figure again, rule → a command line for a POSIX shell.

    ``evaluated_with`` are options of ``evaluate``.
    """
    path, recipe = shlex.quote(gated.subject.path), gated.recipe
    bundled = bundled_recipes().get(recipe.name)
    is_bundled = bundled is not None and bundled.resolve() == recipe.path.resolve()
    reference = recipe.name if is_bundled else shlex.quote(from_here(recipe.path))
    inspect, bench = f"deploykit inspect {path}", f"deploykit bench {path}"
    masks = f"deploykit evaluate {reference} {path} {evaluated_with}"
    return {
        HASH: f"deploykit gate {path} --only hash",
        EQUIVALENCE: f"deploykit verify {path}",
        **dict.fromkeys(COUNTED, inspect),
        Measure.COMPRESSED_BYTES: f"deploykit gate {path} --only {Measure.COMPRESSED_BYTES}",
        **dict.fromkeys(MEASURED_BY_BENCH, bench),
        **dict.fromkeys(MASKS, masks),
        LATENCY_GROWTH: f"deploykit gate {path} --only {Measure.LATENCY}",
        Measure.NEURAL_ENGINE: (
            f"deploykit export {reference} --target {gated.subject.target} --precision {gated.subject.precision} "
            "--dry-run"
        ),
    }
