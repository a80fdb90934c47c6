"""What each stage does, in a process of its own: a call of the library, its record, and files put in place whole."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from deploykit.artifact import put_in_place, read_artifact
from deploykit.benchmark import bench
from deploykit.errors import ArtifactError, CheckpointError, RecipeError, TargetError
from deploykit.evaluation.evaluate import Options as EvaluateOptions
from deploykit.evaluation.evaluate import evaluate
from deploykit.evaluation.records import EvaluationRun
from deploykit.gate_measuring.known import Known
from deploykit.gate_measuring.run import GateOptions, run_gate
from deploykit.lowering import MAX_DROP, ExportOptions, needs_calibration
from deploykit.network import LoadedNetwork, load_network
from deploykit.pipeline import Exporter, prepare_export
from deploykit.quantize.calibration import CalibrationSet, calibration_set
from deploykit.recipe import Recipe, load_recipe
from deploykit.records import to_json, versioned
from deploykit.report.gate_words import failure_line, failures
from deploykit.report_page import write_report
from deploykit.stages.records import Settings, StageKind
from deploykit.stages.tasks import Done, Task
from deploykit.verification import verify
from deploykit.verification.records import ArtifactVerification
from deploykit.verify.reparam import verify_reparam
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Precision

Say = Callable[[str], None]


@dataclass
class Workbench:
    """What one process keeps from stage to stage of one recipe: its network, captured and simplified once."""

    _key: tuple[object, ...] = ()
    _network: LoadedNetwork | None = None
    _exporter: Exporter | None = None
    _calibration: dict[tuple[Path | None, int], CalibrationSet] = field(default_factory=dict)

    def network(self, task: Task) -> LoadedNetwork:
        """Return the network of the task's recipe. Raises where recipe or checkpoint are others than were planned."""
        key = (task.recipe, task.recipe_sha256, task.checkpoint, task.checkpoint_sha256, task.checkpoint_key)
        if self._network is None or self._key != key:
            self._network, self._exporter = _load(task), None
            self._calibration.clear()
            self._key = key
        return self._network

    def exporter(self, task: Task, say: Say) -> Exporter:
        """Return what writes files of that network."""
        network = self.network(task)
        if self._exporter is None:
            say("capturing and simplifying the network")
            self._exporter = prepare_export(network, draw_samples(network.recipe))
        return self._exporter

    def calibration(self, task: Task, settings: Settings, say: Say) -> CalibrationSet:
        """Return the images that ranges come from."""
        key = (settings.calibration, settings.calibration_images)
        if key not in self._calibration:
            say("reading the calibration images")
            self._calibration[key] = calibration_set(self.network(task).recipe, *key)
        return self._calibration[key]


def do(task: Task, workbench: Workbench, say: Say) -> Done:
    """Do one stage and return its files, in place; raises what the library call raises."""
    return _WORK[task.stage.kind](task, workbench, say)


def _load(task: Task) -> LoadedNetwork:
    network = load_network(_recipe(task), checkpoint=task.checkpoint, key=task.checkpoint_key)
    if network.checkpoint_sha256 != task.checkpoint_sha256:
        raise CheckpointError(
            "The checkpoint changed while the pipeline ran.",
            where=str(network.checkpoint_path),
            next_step="run it again",
        )
    return network


def _recipe(task: Task) -> Recipe:
    recipe = load_recipe(task.recipe)
    if recipe.sha256 != task.recipe_sha256:
        raise RecipeError(
            "The recipe changed while the pipeline ran.", where=str(recipe.path), next_step="run it again"
        )
    return recipe


def _settings(task: Task) -> Settings:
    assert task.settings is not None
    return task.settings


def _verify_reparam(task: Task, workbench: Workbench, say: Say) -> Done:
    network = workbench.network(task)
    say("capturing, simplifying and comparing")
    found = verify_reparam(network, draw_samples(network.recipe))
    body = [{**to_json(found), "passed": found.passed}]
    written = _write(task, versioned("verify-reparam", body))
    failures = [*found.findings, *(why for _, one in found.comparisons for why in one.failures)]
    return Done((written,), failed="" if found.passed else "; ".join(failures))


def _export(task: Task, workbench: Workbench, say: Say) -> Done:
    settings, target = _settings(task), task.stage.target
    assert target is not None
    exporter = workbench.exporter(task, say)
    options = ExportOptions(
        precision=task.stage.precision or Precision.FP32,
        input_kind=settings.input_kind,
        output_kind=settings.output_kind,
        max_drop=MAX_DROP if settings.max_drop is None else settings.max_drop,
    )
    calibration = None
    if needs_calibration(options):
        calibration = workbench.calibration(task, settings, say)
        options = replace(options, calibration=calibration.record.sha256)
    with tempfile.TemporaryDirectory(dir=task.work) as scratch:
        made = exporter.write(target, options, Path(scratch), calibration=calibration, verbose=task.verbose, step=say)
        folder = task.root / made.path.parent.relative_to(scratch)
        folder.parent.mkdir(parents=True, exist_ok=True)
        put_in_place(made.path.parent, folder, scratch=task.work)
    return Done((folder,))


def _verify(task: Task, workbench: Workbench, say: Say) -> Done:
    del workbench
    (path,) = task.artifacts
    found = verify(
        read_artifact(path),
        recipe=_recipe(task),
        checkpoint=task.checkpoint,
        checkpoint_key=task.checkpoint_key,
        report=say,
    )
    written = _write(task, versioned("verify", {**to_json(found), "passed": found.passed}))
    return Done((written,), failed="; ".join(found.findings))


def _evaluate(task: Task, workbench: Workbench, say: Say) -> Done:
    (path,) = task.artifacts
    settings, network = _settings(task), workbench.network(task)
    own = settings.data is not None
    options = EvaluateOptions(samples=None if own else settings.samples, clips=settings.clips)
    try:
        run = evaluate(network, read_artifact(path), data=settings.data, options=options, report=say)
    except RecipeError as error:
        # No network of photos and masks: there is nothing to score.
        return Done(skipped=f"{error.message} {error.found or ''}".strip())
    return Done((_write(task, versioned("evaluate", run)),))


def _bench(task: Task, workbench: Workbench, say: Say) -> Done:
    del workbench
    try:
        run = bench(task.artifacts, max_seconds=task.max_seconds, report=say)
    except TargetError as error:
        return Done(skipped=f"{error.message} {error.found or ''}".strip())
    if not run.measured:
        return Done(skipped="; ".join(f"{one.artifact}: {one.reason}" for one in run.skipped))
    return Done((_write(task, versioned("bench", run)),), failed="" if run.complete else f"ended early: {run.ended}")


def _gate(task: Task, workbench: Workbench, say: Say) -> Done:
    del workbench
    options = GateOptions(
        paths=task.artifacts,
        recipes=tuple(map(str, task.recipes)),
        strict=task.strict,
        complete=task.complete,
        known=_known(task.records),
    )
    found = run_gate(options, say)
    written = (_write(task, versioned("gate", found)),)
    if found.passed:
        return Done(written)
    return Done(written, failed=failure_line(found), details=tuple(failures(found)))


def _known(records: Sequence[Path]) -> Known:
    """Return what the stages before found, read back as the store has seen it."""
    bodies: dict[str, list[Any]] = {kind: [] for kind in _JUDGING}
    for path in records:
        record = json.loads(path.read_text("utf-8"))
        bodies[record["kind"]].append(TypeAdapter(_JUDGING[record["kind"]]).validate_python(record["body"]))
    return Known(tuple(bodies["verify"]), tuple(bodies["evaluate"]))


def _report(task: Task, workbench: Workbench, say: Say) -> Done:
    """Write the page on the whole folder; what fails in there is the page's verdict, and no failure to write it."""
    del workbench
    path = task.root / task.record
    with tempfile.TemporaryDirectory(dir=task.work) as scratch:
        page = Path(scratch) / path.name
        found = write_report(task.root, page, recipes=task.recipes, report=say)
        page.replace(path)
    return Done((path,), note=found.sentence)


def _write(task: Task, record: dict[str, Any]) -> Path:
    """Write ``record`` to where the stage's record belongs, whole or not at all."""
    path = task.root / task.record
    with tempfile.TemporaryDirectory(dir=task.work) as scratch:
        temporary = Path(scratch) / path.name
        temporary.write_text(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n", "utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.replace(path)
        except OSError as error:
            raise ArtifactError(
                "The record cannot be written.", where=str(path), found=error.strerror or str(error)
            ) from error
    return path


_JUDGING: dict[str, Any] = {"verify": ArtifactVerification, "evaluate": EvaluationRun}
_WORK: dict[StageKind, Callable[[Task, Workbench, Say], Done]] = {
    StageKind.VERIFY_REPARAM: _verify_reparam,
    StageKind.EXPORT: _export,
    StageKind.VERIFY: _verify,
    StageKind.EVALUATE: _evaluate,
    StageKind.BENCH: _bench,
    StageKind.GATE: _gate,
    StageKind.REPORT: _report,
}
