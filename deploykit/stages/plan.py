"""From recipes and options to the stages of a pipeline: a pure function, the same stages for the same input."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import TargetError, UsageError
from deploykit.recipe import Recipe
from deploykit.recipe_file import PipelineSection
from deploykit.stages.records import Settings, Stage, StageKind
from deploykit.targets.schemes import Impossible, check_scheme, scheme
from deploykit.vocab import Precision, Target

DEFAULT_PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
DEFAULT_MAX_SECONDS = 10.0


@dataclass(frozen=True)
class PipelineOptions:
    """What a user may choose; None and empty take it from the recipe's ``[pipeline]``, else the default.

    ``jobs`` processes work at a time; ``max_seconds`` bounds the runs of each file in ``bench``. ``skip`` are stages to
    leave out. ``fresh`` does every stage again, whatever is there.
    """

    output_dir: Path = Path("artifacts")
    targets: tuple[Target, ...] | None = None
    precisions: tuple[Precision, ...] | None = None
    checkpoint: Path | None = None
    checkpoint_key: str | None = None
    samples: int | None = None
    clips: int | None = None
    max_seconds: float = DEFAULT_MAX_SECONDS
    skip: frozenset[StageKind] = frozenset()
    jobs: int = 1
    fresh: bool = False
    verbose: bool = False


def check_options(options: PipelineOptions) -> None:
    """Raise UsageError unless the seconds of a measurement are in range."""
    if not (math.isfinite(options.max_seconds) and options.max_seconds >= 0):
        raise UsageError("--max-seconds is out of range.", found=str(options.max_seconds), expected="0 or more")


@dataclass(frozen=True)
class Cell:
    """One artifact of the matrix of targets and precisions; ``skip`` says why it is not made."""

    target: Target
    precision: Precision
    skip: str = ""

    @property
    def name(self) -> str:
        """How stages name it."""
        return f"{self.target}-{self.precision}"


def settings_of(recipe: Recipe, options: PipelineOptions) -> Settings:
    """Return how ``recipe`` is exported and judged."""
    section = recipe.file.pipeline or PipelineSection()
    folder = recipe.path.parent
    return Settings(
        input_kind=section.input_kind,
        output_kind=section.output_kind,
        calibration=None if section.calibration is None else (folder / section.calibration).resolve(),
        calibration_images=section.calibration_images,
        max_drop=section.max_drop,
        data=None if section.data is None else (folder / section.data).resolve(),
        samples=section.samples if options.samples is None else options.samples,
        clips=section.clips if options.clips is None else options.clips,
    )


def cells_of(recipe: Recipe, options: PipelineOptions, missing: Mapping[Target, str]) -> tuple[Cell, ...]:
    """Return the artifacts to make of ``recipe``, those that are not made with the reason; ``missing`` is target → why.

    Raises TargetError for a named target that is not installed, and for a precision that a named target does not have.
    """
    section = recipe.file.pipeline or PipelineSection()
    targets = options.targets or section.targets
    precisions = options.precisions or section.precisions
    for target in targets or ():
        if target in missing:
            raise TargetError(
                f"The target {target} is not installed.",
                where="--target" if options.targets else f"{recipe.path}: pipeline.targets",
                found=missing[target],
            )
        for precision in precisions or ():
            check_scheme(target, precision, None)
    cells = []
    for target in targets or tuple(Target):
        for precision in precisions or DEFAULT_PRECISIONS:
            known = scheme(target, precision)
            impossible = f"{known.reason}; nearest: {known.nearest}" if isinstance(known, Impossible) else ""
            cells.append(Cell(target, precision, missing.get(target, "") or impossible))
    return tuple(cells)


def plan_stages(
    recipes: Sequence[Recipe], options: PipelineOptions, *, missing: Mapping[Target, str], budgets: bool
) -> tuple[Stage, ...]:
    """Return the stages of all ``recipes``, each after those that it needs; ``budgets``: whether there are any.

    Raises UsageError where two recipes have one name, or nothing at all would be made; TargetError as ``cells_of``.
    """
    names = [one.name for one in recipes]
    twice = next((one for one in recipes if names.count(one.name) > 1), None)
    if twice is not None:
        raise UsageError(
            "Two recipes have the same name.",
            where=", ".join(str(one.path) for one in recipes if one.name == twice.name),
            found=twice.name,
            expected="recipes of different names: each has a folder of its own name",
            next_step="change name in one of the files, or run them one by one, each with its own --output-dir",
        )
    stages: list[Stage] = []
    for recipe in recipes:
        stages += _of_recipe(recipe, cells_of(recipe, options, missing), options.skip)
    exports = tuple(one.name for one in stages if one.kind is StageKind.EXPORT and not one.skip)
    if not exports:
        why = "; ".join(dict.fromkeys(f"{one.name}: {one.skip}" for one in stages if one.kind is StageKind.EXPORT))
        raise UsageError(
            "There is nothing to make.",
            found=why,
            expected="at least one target that is installed",
            next_step="pip install 'deploykit[all]'",
        )
    left_out = "" if budgets else "no budgets in the recipe or in deploykit.toml"
    if StageKind.GATE in options.skip:
        left_out = f"--skip {StageKind.GATE}"
    every = tuple(one.name for one in stages)
    judged = tuple(one.name for one in stages if one.kind in (StageKind.VERIFY, StageKind.EVALUATE) and not one.skip)
    gate = Stage(StageKind.GATE.value, StageKind.GATE, after=every, takes=exports, reads=judged, skip=left_out)
    left_out = f"--skip {StageKind.REPORT}" if StageKind.REPORT in options.skip else ""
    every = (*every, gate.name)
    # The page is on all that lies in the folder: it is made also where no export passed.
    return (*stages, gate, Stage(StageKind.REPORT.value, StageKind.REPORT, after=every, skip=left_out))


def _of_recipe(recipe: Recipe, cells: Sequence[Cell], skip: frozenset[StageKind]) -> list[Stage]:
    name = recipe.name
    checked = Stage(f"{name}/{StageKind.VERIFY_REPARAM}", StageKind.VERIFY_REPARAM, name)
    stages, exports = [checked], []
    for cell in cells:
        export = Stage(
            f"{name}/export/{cell.name}",
            StageKind.EXPORT,
            name,
            cell.target,
            cell.precision,
            needs=(checked.name,),
            skip=cell.skip,
        )
        stages.append(export)
        if cell.skip:
            continue
        exports.append(export.name)
        for kind in (StageKind.VERIFY, StageKind.EVALUATE):
            left_out = f"--skip {kind}" if kind in skip else ""
            stages.append(
                Stage(
                    f"{name}/{kind}/{cell.name}",
                    kind,
                    name,
                    cell.target,
                    cell.precision,
                    needs=(export.name,),
                    takes=(export.name,),
                    skip=left_out,
                )
            )
    left_out = f"--skip {StageKind.BENCH}" if StageKind.BENCH in skip else ""
    if exports:
        bench = Stage(f"{name}/bench", StageKind.BENCH, name, after=tuple(exports), takes=tuple(exports), skip=left_out)
        stages.append(bench)
    return stages
