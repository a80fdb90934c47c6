"""What ``deploykit pipeline`` prints at its end: the artifacts with their figures, the other stages, the reasons."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.stages.records import Outcome, StageKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.table import Table

    from deploykit.stages.records import PipelineRun, StageResult

_MIOU = "two_class_miou"
_WIDE = 100
_OF_ARTIFACTS = (StageKind.EXPORT, StageKind.VERIFY, StageKind.EVALUATE)


def show(run: PipelineRun, *, tables: bool) -> None:
    """Print the tables and what there is to say of single stages to stdout, notes and the last sentence to stderr."""
    from deploykit.cli.console import stderr_console, stdout_console

    if tables:
        console = stdout_console()
        wide = console.width >= _WIDE
        for recipe in dict.fromkeys(one.recipe for one in run.stages if one.kind is StageKind.EXPORT):
            console.print(_artifacts(run, recipe, wide=wide))
        console.print(_others(run))
        for line in _remarks(run):
            console.print(line, markup=False, soft_wrap=not console.is_terminal)
    console = stderr_console()
    for note in run.notes:
        console.print(f"note: {note}", markup=False)
    console.print(_sentence(run), markup=False, soft_wrap=True)


def _sentence(run: PipelineRun) -> str:
    counts = {outcome: run.count(outcome) for outcome in Outcome}
    skipped = f"; {counts[Outcome.SKIPPED]} skipped" if counts[Outcome.SKIPPED] else ""
    if run.nothing_to_do:
        return f"Nothing to do: {counts[Outcome.UP_TO_DATE]} stages are up to date{skipped}."
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    end = " What is done is kept: the same command goes on from here." if run.interrupted else ""
    return f"{len(run.stages)} stages in {run.seconds:.1f} s: {said}.{end}"


def _artifacts(run: PipelineRun, recipe: str, *, wide: bool) -> Table:
    """Return the artifacts of one recipe: what fits into 80 columns, with the change of the mIoU where it is wide."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Artifacts of {escape(recipe)} in {escape(run.output_dir.as_posix())}", title_justify="left")
    for column in ("target", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("size", "mIoU", *(["minus the checkpoint's"] if wide else []), "latency"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    latencies = {name: value for one in run.stages for name, value in _latencies(run, one)}
    for one in run.stages:
        if one.kind is not StageKind.EXPORT or one.recipe != recipe:
            continue
        row = _row(run, one)
        evaluated = next((stage for stage in row if stage.kind is StageKind.EVALUATE), None)
        miou, change = _miou(run, evaluated)
        latency = latencies.get((one.recipe, str(one.target), str(one.precision)))
        table.add_row(
            str(one.target),
            str(one.precision),
            _size(one),
            miou,
            *([change] if wide else []),
            "-" if latency is None else f"{1000 * latency:.2f} ms",
            _state(row),
            style="bold red" if any(_bad(result) for result in row) else None,
        )
    return table


def _row(run: PipelineRun, export: StageResult) -> list[StageResult]:
    """Return what became of one artifact: its export, verification and evaluation, as far as they are stages."""
    cell = (export.recipe, export.target, export.precision)
    return [one for one in run.stages if (one.recipe, one.target, one.precision) == cell]


def _state(row: Sequence[StageResult]) -> str:
    """Return what became of an artifact in two words: the worst of it."""
    open_ = [one for one in row if not one.outcome.passed]
    worst = next((one for one in open_ if _bad(one)), open_[0] if open_ else None)
    if worst is not None:
        return f"{worst.kind} {worst.outcome}"
    return str(Outcome.DONE if any(one.outcome is Outcome.DONE for one in row) else Outcome.UP_TO_DATE)


def _others(run: PipelineRun) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Other stages", title_justify="left")
    table.add_column("stage", overflow="fold")
    table.add_column("result", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    for one in run.stages:
        if one.kind not in _OF_ARTIFACTS:
            now = one.outcome in (Outcome.DONE, Outcome.FAILED)
            took = f"{one.seconds:.1f} s" if now else "-"
            table.add_row(escape(one.stage), str(one.outcome), took, style="bold red" if _bad(one) else None)
    return table


def _remarks(run: PipelineRun) -> Iterator[str]:
    """Yield why stages did not pass and what others came to, those with one reason together, then their details."""
    same: dict[tuple[Outcome, str], list[str]] = {}
    for one in run.stages:
        # Of an artifact that failed, what was not run for it says nothing new.
        if one.reason.strip() and not (one.kind in _OF_ARTIFACTS and one.outcome is Outcome.NOT_RUN):
            same.setdefault((one.outcome, one.reason.strip().splitlines()[0]), []).append(one.stage)
    for (outcome, reason), stages in same.items():
        yield f"{', '.join(stages)} {outcome}: {reason}"
    for one in run.stages:
        yield from one.details


def _bad(result: StageResult) -> bool:
    return result.outcome in (Outcome.FAILED, Outcome.NOT_RUN)


def _size(export: StageResult) -> str:
    if not export.outputs:
        return "-"
    own = [one.size_bytes for one in export.outputs if Path(one.path).name not in ("manifest.json", "certificate.json")]
    return f"{sum(own) / 1000:.0f} kB"


def _miou(run: PipelineRun, result: StageResult | None) -> tuple[str, str]:
    for record in _records(run, result):
        found = [one for one in record["evaluations"][-1]["summaries"] if one["metric"] == _MIOU]
        if found and found[0]["estimate"] and found[0]["difference"]:
            difference = 100 * found[0]["difference"]["value"]
            return f"{found[0]['estimate']['value']:.4f}", f"{difference:+.2f} points"
    return "-", "-"


def _latencies(run: PipelineRun, result: StageResult) -> Iterator[tuple[tuple[str, str, str], float]]:
    """Yield the median of each file that a bench measured, in seconds."""
    if result.kind is StageKind.BENCH:
        for record in _records(run, result):
            for one in record["measured"]:
                samples = one["samples_s"]
                if samples:
                    key = (result.recipe, str(one["target"]), str(one["precision"]))
                    away = one.get("away_s") or [0.0] * len(samples)
                    yield key, statistics.median(taken - other for taken, other in zip(samples, away, strict=True))


def _records(run: PipelineRun, result: StageResult | None) -> Iterator[dict[str, Any]]:
    """Yield the bodies of the records that a stage wrote."""
    for one in result.outputs if result is not None and result.outcome.passed else ():
        yield json.loads((run.output_dir / one.path).read_bytes())["body"]
