"""All precisions of one network on all targets, side by side: bytes, masks, latency, and what is on a Pareto front."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from deploykit.errors import DeploykitError, RecipeError, UsageError
from deploykit.evaluation.evaluate import Options, evaluate
from deploykit.evaluation.records import Evaluation, EvaluationRun, Summary
from deploykit.latency.drivers.host import measure_on_host
from deploykit.latency.measure import MIN_RUNS, MIN_SECONDS, Protocol, check_plan
from deploykit.latency.subjects import exported_subjects, unmeasurable
from deploykit.latency_records import Latency
from deploykit.lowering import MAX_DROP, ExportOptions, options_for
from deploykit.network import LoadedNetwork
from deploykit.pipeline import prepare_export
from deploykit.quantize.calibration import CalibrationSet
from deploykit.records import Artifact, Calibration, Quantization
from deploykit.targets.schemes import Impossible, scheme
from deploykit.targets.table import TARGETS, part
from deploykit.verify.samples import draw_samples
from deploykit.vocab import Estimator, Precision, Target

Say = Callable[[str], None]
Keep = Callable[[Sequence[Artifact], EvaluationRun], object]
CLIPS = 2
DEFAULT_HELD_OUT = 32
BITS_OF_A_FLOAT = 32
# A day: the runs that were asked for are done, however long a slow network takes.
_NO_BOUND_S = 86_400.0


class State(StrEnum):
    """What became of a cell."""

    MADE = "made"
    FAILED = "failed"
    IMPOSSIBLE = "impossible"
    NOT_INSTALLED = "not installed"


@dataclass(frozen=True)
class Figures:
    """One file. ``weight_bytes`` are those of its weights with their scales, ``weight_share`` of the same in fp32.

    The rest of ``size_bytes`` describes the graph. ``path`` is None where the file was not kept. ``summaries`` are the
    figures on held-out portraits with their difference to the checkpoint; ``no_latency`` says why there is no latency.
    ``smallest`` and ``fastest``: no other file of the report has at least its mIoU with fewer bytes, or in less time.
    """

    path: Path | None
    content_hash: str
    size_bytes: int
    weight_bytes: int
    weight_share: float
    quantization: Quantization | None
    summaries: tuple[Summary, ...] = ()
    latency: Latency | None = None
    no_latency: str = ""
    smallest: bool = False
    fastest: bool = False

    @property
    def miou(self) -> float | None:
        """The mean IoU of portrait and background, 0 to 1; None where it was not measured."""
        return value_of(self.summaries, "two_class_miou")


@dataclass(frozen=True)
class Cell:
    """A precision of a target: ``figures`` where it was made, else the ``reason``, and the ``nearest`` possible one.

    ``defaults``: with a quantizer's usual settings (ranges from smallest to largest value, nothing equalized, corrected
    or left in float), to see what the chosen settings gain.
    """

    target: Target
    precision: Precision
    defaults: bool
    state: State
    reason: str = ""
    nearest: Precision | None = None
    figures: Figures | None = None


@dataclass(frozen=True)
class QuantizationReport:
    """Every cell of one network, target by target. ``checkpoint`` holds the figures of the network itself."""

    recipe: str
    checkpoint_sha256: str
    held_out: int
    calibration: Calibration
    checkpoint: tuple[Summary, ...]
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Cell, ...]:
        """The cells that were to be made and were not; a quantizer's defaults may fail."""
        return tuple(one for one in self.cells if one.state is State.FAILED and not one.defaults)


def value_of(summaries: Sequence[Summary], metric: str) -> float | None:
    """Return the value of ``metric`` among ``summaries``, None where there is none."""
    found = [one.estimate for one in summaries if one.metric == metric]
    return found[0].value if found and found[0] is not None else None


Failed = Callable[[Cell, Exception], None]


def quantization_report(
    network: LoadedNetwork,
    calibration: CalibrationSet,
    *,
    targets: Sequence[Target] = tuple(Target),
    precisions: Sequence[Precision] = tuple(Precision),
    held_out: int = DEFAULT_HELD_OUT,
    max_drop: float | None = MAX_DROP,
    output_dir: Path | None = None,
    threads: int = 1,
    runs: int = MIN_RUNS,
    seconds: float = MIN_SECONDS,
    step: Say | None = None,
    failed: Failed | None = None,
    keep: Keep | None = None,
) -> QuantizationReport:
    """Return what each of ``precisions`` on each of ``targets`` makes of ``network``, as files that were run.

    Every file is made, evaluated and timed once; all are evaluated on the same ``held_out`` portraits and timed in one
    interleaved run. Integers may cost ``max_drop`` points of mIoU. The files stay below ``output_dir``, or go with a
    temporary folder. A cell that fails is listed with its error and stops no other; ``failed`` is told it with the
    error itself. ``keep`` is given the files that were evaluated, with the evaluation.

    Raises UsageError for figures out of range, and VerificationError where the network itself cannot be simplified or
    evaluated.
    """
    say = step or (lambda message: None)
    check_plan(threads, runs, seconds)
    if held_out < 1:
        raise UsageError("Too few portraits to judge.", where="--held-out", found=str(held_out), expected="1 or more")
    with ExitStack() as stack:
        folder = output_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deploykit-report-")))
        planned = _planned(targets, precisions)
        cells, made = _written(network, calibration, planned, folder, say, max_drop=max_drop, failed=failed)
        options = Options(samples=held_out, clips=CLIPS, threads=threads)
        judged = _judged(network, list(made.values()), options, say, keep)
        timed = _timed([one for one in made.values() if one.path in judged.found], threads, runs, seconds, say)
        finished = []
        for index, cell in enumerate(cells):
            artifact = made.get(index)
            if artifact is None:
                finished.append(cell)
            elif artifact.path in judged.failed:
                finished.append(_failed(cell, judged.failed[artifact.path], failed))
            else:
                found = _figures(artifact, judged.found[artifact.path], timed, kept=output_dir is not None)
                finished.append(replace(cell, figures=found))
    return QuantizationReport(
        recipe=network.recipe.name,
        checkpoint_sha256=network.checkpoint_sha256,
        held_out=held_out,
        calibration=calibration.record,
        checkpoint=judged.checkpoint,
        cells=_with_fronts(finished),
        notes=(*calibration.record.notes, *judged.notes),
    )


def _planned(targets: Sequence[Target], precisions: Sequence[Precision]) -> list[Cell]:
    """Return the cells to fill: the impossible ones with their reason, w8a8 with a quantizer's defaults as well."""
    found = []
    for target in targets:
        missing = TARGETS[target].missing()
        for precision in precisions:
            known = scheme(target, precision)
            if isinstance(known, Impossible):
                found.append(Cell(target, precision, False, State.IMPOSSIBLE, known.reason, known.nearest))
            elif missing:
                reason = f"not installed: {', '.join(missing)}; {TARGETS[target].install_command()}"
                found.append(Cell(target, precision, False, State.NOT_INSTALLED, reason))
            else:
                kinds = (False, True) if precision is Precision.INT8 else (False,)
                found.extend(Cell(target, precision, defaults, State.MADE) for defaults in kinds)
    return found


def _options(cell: Cell, calibration: CalibrationSet, max_drop: float | None) -> ExportOptions:
    plain = ExportOptions(precision=cell.precision, calibration=calibration.record.sha256, max_drop=max_drop)
    if not cell.defaults:
        return plain
    return replace(plain, estimator=Estimator.MIN_MAX, equalization=0.0, correct_biases=False, max_drop=None)


def _written(
    network: LoadedNetwork,
    calibration: CalibrationSet,
    cells: Sequence[Cell],
    folder: Path,
    say: Say,
    *,
    max_drop: float | None,
    failed: Failed | None,
) -> tuple[list[Cell], dict[int, Artifact]]:
    """Return ``cells``, those that failed with their error, and the artifacts of the others by their place."""
    wanted = [cell for cell in cells if cell.state is State.MADE]
    found = list(cells)
    made: dict[int, Artifact] = {}
    if not wanted:
        return found, made
    say("capturing and simplifying the network")
    exporter = prepare_export(network, draw_samples(network.recipe))
    for index, cell in enumerate(cells):
        if cell.state is not State.MADE:
            continue
        settings = ", the quantizer's defaults" if cell.defaults else ""
        say(f"file {wanted.index(cell) + 1} of {len(wanted)}: {cell.target} {cell.precision}{settings}")
        options = options_for(cell.target, _options(cell, calibration, max_drop), alone=False)
        try:
            made[index] = exporter.write(cell.target, options, folder, calibration=calibration, step=say)
        except Exception as error:
            # Converters raise classes of their own; whatever it is, the other cells are still worth having.
            found[index] = _failed(cell, error, failed)
    return found, made


def _failed(cell: Cell, error: Exception, tell: Failed | None) -> Cell:
    reason = error.render() if isinstance(error, DeploykitError) else f"{type(error).__name__}: {error}"
    found = replace(cell, state=State.FAILED, reason=reason)
    if tell is not None:
        tell(found, error)
    return found


@dataclass(frozen=True)
class _Judged:
    """Summaries by path, those of the checkpoint, and what could not be evaluated with the error."""

    found: dict[Path, tuple[Summary, ...]]
    failed: dict[Path, Exception]
    checkpoint: tuple[Summary, ...]
    notes: tuple[str, ...] = ()


def _judged(
    network: LoadedNetwork, artifacts: Sequence[Artifact], options: Options, say: Say, keep: Keep | None
) -> _Judged:
    keeps = keep or (lambda artifacts, run: None)
    try:
        run = evaluate(network, *artifacts, options=options, report=say)
    except RecipeError as error:
        return _Judged({one.path: () for one in artifacts}, {}, (), (f"masks are not judged: {error.message}",))
    except Exception:
        if not artifacts:
            raise
    else:
        keeps(artifacts, run)
        first, *others = run.evaluations
        return _Judged(_by_path(others), {}, first.summaries)
    # One file stops them all: each is tried alone.
    first = evaluate(network, options=options, report=say).evaluations[0]
    found: dict[Path, tuple[Summary, ...]] = {}
    failed: dict[Path, Exception] = {}
    for artifact in artifacts:
        try:
            run = evaluate(network, artifact, options=options, report=say)
        except Exception as error:
            failed[artifact.path] = error
        else:
            keeps([artifact], run)
            found.update(_by_path(run.evaluations[1:]))
    return _Judged(found, failed, first.summaries)


def _by_path(evaluations: Sequence[Evaluation]) -> dict[Path, tuple[Summary, ...]]:
    return {one.path: one.summaries for one in evaluations if one.path is not None}


def _timed(
    artifacts: Sequence[Artifact], threads: int, runs: int, seconds: float, say: Say
) -> dict[Path, Latency | str]:
    """Return the latency of each of ``artifacts`` by path, or why there is none."""
    found: dict[Path, Latency | str] = {one.path: unmeasurable(one.plan.target) for one in artifacts}
    subjects = exported_subjects(one for one in artifacts if not found[one.path])
    if not subjects:
        return found
    try:
        protocol = Protocol(
            min_runs=runs, min_seconds=seconds, max_seconds=_NO_BOUND_S, precision_target=None, startup=False
        )
        result = measure_on_host(subjects, threads=threads, protocol=protocol, report=say)
    except DeploykitError as error:
        return {path: reason or error.message for path, reason in found.items()}
    paths = {one.name: one.path for one in subjects}
    found.update({paths[one.artifact]: one.reason for one in result.skipped})
    found.update({paths[one.artifact]: one for one in result.measured})
    return found


def _figures(
    artifact: Artifact, summaries: tuple[Summary, ...], timed: dict[Path, Latency | str], *, kept: bool
) -> Figures:
    latency = timed[artifact.path]
    made = artifact.quantization
    if made is not None:
        weight_bytes, float_bytes = made.weight_bytes, made.float_weight_bytes
    else:
        contents = part(artifact.plan.target, "inspection").read_contents(artifact.path)
        numbers = [one for one in contents.weights if one.dtype.startswith("float")]
        weight_bytes = sum(one.size_bytes for one in numbers)
        float_bytes = sum(one.values for one in numbers) * BITS_OF_A_FLOAT // 8
    return Figures(
        path=artifact.path if kept else None,
        content_hash=artifact.content_hash,
        size_bytes=artifact.size_bytes,
        weight_bytes=weight_bytes,
        weight_share=weight_bytes / max(float_bytes, 1),
        quantization=made,
        summaries=summaries,
        latency=latency if isinstance(latency, Latency) else None,
        no_latency=latency if isinstance(latency, str) else "",
    )


def _with_fronts(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    sizes = [None if one.figures is None else float(one.figures.size_bytes) for one in cells]
    times = [one.figures.latency.median_s if one.figures and one.figures.latency else None for one in cells]
    qualities = [None if one.figures is None else one.figures.miou for one in cells]
    marks = zip(cells, pareto_front(sizes, qualities), pareto_front(times, qualities), strict=True)
    return tuple(
        cell if cell.figures is None else replace(cell, figures=replace(cell.figures, smallest=small, fastest=fast))
        for cell, small, fast in marks
    )


def pareto_front(costs: Sequence[float | None], qualities: Sequence[float | None]) -> list[bool]:
    """Return for each point whether no other is at least as cheap and as good, and better in one of both.

    A point without a cost or a quality is on no front.
    """
    points = list(zip(costs, qualities, strict=True))
    known = [(c, q) for c, q in points if c is not None and q is not None]
    return [
        cost is not None
        and quality is not None
        and not any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in known)
        for cost, quality in points
    ]
