"""A whole pipeline: recipes and options become stages, those that are not up to date are done, the rest is said."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from deploykit.artifact import MANIFEST, require_writable
from deploykit.errors import CheckpointError, UsageError
from deploykit.recipe import Recipe, default_recipe, load_recipe, project_file
from deploykit.stages.keys import Inputs, contents_of, key_of
from deploykit.stages.lock import locked
from deploykit.stages.plan import PipelineOptions, check_options, plan_stages, settings_of
from deploykit.stages.records import Outcome, PipelineRun, Stage, StageKind, StageResult
from deploykit.stages.run_record import RUN_RECORD, write_run_record
from deploykit.stages.scheduler import Listener, Scheduler, in_order
from deploykit.stages.store import Store
from deploykit.stages.tasks import Task
from deploykit.stages.workers import Worker
from deploykit.targets.table import TARGETS
from deploykit.vocab import Target

RECORDS = "records"


@dataclass(frozen=True)
class _Project:
    """The recipes of one run, their weights, what decides their stages, and what became of these so far."""

    recipes: Mapping[str, Recipe]
    checkpoints: Mapping[str, Path]
    options: PipelineOptions
    store: Store
    inputs: Inputs
    stages: Sequence[Stage]
    results: dict[str, StageResult] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def decided_by(self, stage: Stage) -> dict[str, str]:
        """Return what decides ``stage`` besides the artifacts that it is given."""
        recipe = self.recipes.get(stage.recipe)
        settings = None if recipe is None else settings_of(recipe, self.options)
        found = self.inputs.of(stage, recipe, settings, self.checkpoints.get(stage.recipe))
        if recipe is None:
            found |= {f"the recipe {name}": one.sha256 for name, one in self.recipes.items()}
        if stage.kind is StageKind.REPORT:
            found["what is in the folder"] = contents_of(self.store.root, but=(record_of(stage), RUN_RECORD))
            # Of the record of the run only this: the rest of it is other in every run.
            found["what became of the stages"] = key_of(
                {name: _verdict(one) for name, one in self.results.items() if name != stage.name}
            )
        return found

    def turn(self, stage: Stage) -> str:
        """Put in order what the report reads; return why there can be none, or nothing. Other stages need no such."""
        if stage.kind is not StageKind.REPORT:
            return ""
        self.drop_stale()
        write_run_record(self.run(but=stage))
        self.put_back(stage)
        there = any(path for name in self.recipes for path in self.store.root.joinpath(name).rglob(MANIFEST))
        return "" if there else "there is no artifact of " + ", ".join(self.recipes)

    def begin(self, stage: Stage, taken: Sequence[StageResult]) -> Task:
        """Return ``stage`` as a task; a page of an earlier run is put aside, so that none stands for half a run."""
        page = record_of(self.page())
        if (self.store.root / page).is_file():
            (self.store.root / page).replace(self.store.aside(page))
        return self.task(stage, taken)

    def put_back(self, page: Stage) -> bool:
        """Put the page of an earlier run back where it was, to be judged; return whether it was put aside."""
        aside = self.store.aside(record_of(page))
        there = aside.is_file()
        if there:
            aside.replace(self.store.root / record_of(page))
        return there

    def page(self) -> Stage:
        """Return the stage that writes the page."""
        return next(one for one in self.stages if one.kind is StageKind.REPORT)

    def drop_stale(self) -> None:
        """Remove records of an earlier run where this one has none and the artifacts that they are of are gone."""
        for stage in self.stages:
            outcome = self._outcome(stage.name)
            if outcome not in (Outcome.NOT_RUN, Outcome.SKIPPED) or not stage.takes:
                continue
            gone = all(self._outcome(name) is Outcome.FAILED for name in stage.takes)
            if gone or (stage.kind is StageKind.GATE and outcome is Outcome.NOT_RUN):
                self._drop(stage)

    def drop_stale_page(self) -> None:
        """Remove the page of an earlier run where this one made none, unless it is of just what there is now."""
        page = self.page()
        outcome = self._outcome(page.name)
        if outcome is not None and outcome.passed:
            return
        aside = self.put_back(page)
        if outcome in (None, Outcome.SKIPPED):
            stored = self.store.read(page.name)
            if not aside or (stored is not None and not self.store.stale(stored, self.decided_by(page))):
                return
        self._drop(page)

    def _outcome(self, stage: str) -> Outcome | None:
        result = self.results.get(stage)
        return None if result is None else result.outcome

    def _drop(self, stage: Stage) -> None:
        name = record_of(stage)
        there = (self.store.root / name).is_file()
        self.store.discard(stage.name)
        (self.store.root / name).unlink(missing_ok=True)
        if there:
            self.notes.append(f"removed {name} of an earlier run: it is not of what there is now")

    def run(self, but: Stage | None = None) -> PipelineRun:
        """Return the run as it is now, without the stage ``but``."""
        stages = in_order([one for one in self.stages if one != but], self.results)
        seconds = time.monotonic() - self.started
        return PipelineRun(self.options.output_dir, stages, seconds, tuple(self.notes))

    def task(self, stage: Stage, taken: Sequence[StageResult]) -> Task:
        """Return ``stage`` as a process is told to do it, with the artifacts of the exports ``taken``."""
        options, recipe = self.options, self.recipes.get(stage.recipe)
        task = Task(
            stage=stage,
            root=self.store.root,
            work=self.store.work,
            record=record_of(stage),
            artifacts=tuple(self.store.root / one for result in taken for one in _manifests(result)),
            records=tuple(self.store.root / one.path for name in stage.reads for one in self.results[name].outputs),
            recipes=tuple(one.path for one in self.recipes.values()),
            max_seconds=options.max_seconds,
            strict=in_ci(),
            complete=options.targets is None and options.precisions is None,
            verbose=options.verbose,
        )
        if recipe is None:
            return task
        return replace(
            task,
            recipe=recipe.path,
            recipe_sha256=recipe.sha256,
            settings=settings_of(recipe, options),
            checkpoint=None if options.checkpoint is None else options.checkpoint.resolve(),
            checkpoint_key=options.checkpoint_key,
            checkpoint_sha256=self.inputs.digest(self.checkpoints[recipe.name]),
        )


def run_pipeline(names: Sequence[str | Path], options: PipelineOptions, listener: Listener) -> PipelineRun:
    """Return what became of every stage of the recipes called ``names``; without any, of the project's or the default.

    A recipe that is named twice is done once.

    Artifacts lie where ``deploykit export`` puts them below ``options.output_dir``, records in ``<recipe>/records``.
    What fails is a result, not an error; Ctrl-C ends the run with what is done until then.

    Raises:
        RecipeError: no such recipe, or not a valid one.
        CheckpointError: a recipe without weights, where none are given.
        TargetError, UsageError: something named that cannot be, before anything is done.
        ArtifactError: the folder cannot be written, or another pipeline works in it.
    """
    check_options(options)
    here = Path.cwd()
    named = [load_recipe(name) for name in names or (default_recipe(here),)]
    recipes = list({one.path: one for one in named}.values())
    checkpoints = _checkpoints(recipes, options)
    missing = {target: reason for target in TARGETS if (reason := _missing(target))}
    stages = plan_stages(recipes, options, missing=missing, budgets=_budgets(recipes, here))
    require_writable(options.output_dir)
    store = Store(options.output_dir.absolute())
    inputs = Inputs(here, checkpoint_key=options.checkpoint_key, max_seconds=options.max_seconds)
    project = _Project({one.name: one for one in recipes}, checkpoints, options, store, inputs, stages)
    with locked(store.lock, options.output_dir):
        if left := store.clean():
            items = f"{left} item{'' if left == 1 else 's'}"
            project.notes.append(f"removed what a run before this one left half-done: {items}")
        # Where this run is killed, no record says that it passed.
        write_run_record(project.run())
        scheduler = Scheduler(
            stages=stages,
            store=store,
            inputs=project.decided_by,
            task=project.begin,
            hire=partial(Worker, store.work, verbose=options.verbose),
            listener=listener,
            jobs=options.jobs,
            fresh=options.fresh,
            turn=project.turn,
            results=project.results,
        )
        scheduler.run()
        project.drop_stale()
        project.drop_stale_page()
        store.clean()
        run = project.run()
        write_run_record(run)
    return run


def record_of(stage: Stage) -> str:
    """Return where the record of ``stage`` is, relative to the pipeline's folder; the manifest is that of an export."""
    if not stage.recipe:
        return "report.html" if stage.kind is StageKind.REPORT else f"{stage.kind}.json"
    cell = f"-{stage.target}-{stage.precision}" if stage.target else ""
    return f"{stage.recipe}/{RECORDS}/{stage.kind}{cell}.json"


def in_ci() -> bool:
    """Whether this is a run of continuous integration, where what is skipped fails the gate."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _manifests(result: StageResult) -> list[str]:
    if result.kind is not StageKind.EXPORT:
        return []
    # A Core ML package has a Manifest.json of its own, below the artifact's folder.
    return [one.path for one in result.outputs if one.path.endswith(f"/{MANIFEST}")][:1]


def _verdict(result: StageResult) -> str:
    return "passed" if result.outcome.passed else f"{result.outcome}: {result.reason}"


def _missing(target: Target) -> str:
    row = TARGETS[target]
    missing = row.missing()
    return f"not installed: {', '.join(missing)}; {row.install_command()}" if missing else ""


def _checkpoints(recipes: Sequence[Recipe], options: PipelineOptions) -> dict[str, Path]:
    if options.checkpoint is not None and len(recipes) > 1:
        raise UsageError(
            "A checkpoint belongs to one recipe.",
            where="--checkpoint",
            found=f"{len(recipes)} recipes",
            expected="one recipe",
        )
    found = {}
    for recipe in recipes:
        path = options.checkpoint or recipe.checkpoint_path()
        if path is None or not path.is_file():
            raise CheckpointError(
                "There are no trained weights.",
                where=str(recipe.path) if path is None else str(path),
                found="no checkpoint in the recipe" if path is None else "no file",
                expected="[checkpoint] in the recipe, or --checkpoint FILE",
            )
        found[recipe.name] = path.resolve()
    return found


def _budgets(recipes: Sequence[Recipe], folder: Path) -> bool:
    project = project_file(folder)
    names = {one.name for one in recipes}
    shared = project.budgets if project else ()
    return any(not one.recipes or names & {*one.recipes} for one in shared) or any(one.file.budgets for one in recipes)
