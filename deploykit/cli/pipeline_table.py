"""What ``deploykit pipeline`` prints at its end: the artifacts with their figures, the other stages, one sentence."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploykit.stages.records import Outcome, StageKind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from deploykit.stages.records import PipelineRun, StageResult

_MIOU = "two_class_miou"


def body(run: PipelineRun) -> dict[str, Any]:
    """Return ``run`` as JSON, with its verdict."""
    from deploykit.records import to_json

    return {**to_json(run), "passed": run.passed, "exit_code": run.exit_code, "nothing_to_do": _idle(run)}


def show(run: PipelineRun, *, tables: bool) -> None:
    """Print the tables to stdout, notes and the last sentence to stderr."""
    from deploykit.cli.console import stderr_console, stdout_console

    if tables:
        for table in (_artifacts(run), _others(run)):
            if table.row_count:
                stdout_console().print(table)
    console = stderr_console()
    for note in run.notes:
        console.print(f"note: {note}", markup=False)
    console.print(_sentence(run), markup=False, soft_wrap=True)


def _idle(run: PipelineRun) -> bool:
    return not any(one.outcome not in (Outcome.UP_TO_DATE, Outcome.SKIPPED) for one in run.stages)


def _sentence(run: PipelineRun) -> str:
    counts = {outcome: run.count(outcome) for outcome in Outcome}
    skipped = f"; {counts[Outcome.SKIPPED]} skipped" if counts[Outcome.SKIPPED] else ""
    if _idle(run):
        return f"Nothing to do: {counts[Outcome.UP_TO_DATE]} stages are up to date{skipped}."
    said = ", ".join(f"{count} {outcome}" for outcome, count in counts.items() if count)
    end = " What is done is kept: the same command goes on from here." if run.interrupted else ""
    return f"{len(run.stages)} stages in {run.seconds:.1f} s: {said}.{end}"


def _artifacts(run: PipelineRun) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"Artifacts in {escape(run.output_dir.as_posix())}", title_justify="left")
    for column in ("recipe", "target", "precision"):
        table.add_column(column)
    for column in ("size", "mIoU", "minus the checkpoint's", "latency"):
        table.add_column(column, justify="right")
    for column in ("export", "verify", "evaluate"):
        table.add_column(column, overflow="fold")
    results = {one.stage: one for one in run.stages}
    latencies = {name: value for one in run.stages for name, value in _latencies(run, one)}
    for one in run.stages:
        if one.kind is not StageKind.EXPORT:
            continue
        cell = f"{one.target}-{one.precision}"
        verified, evaluated = (results.get(f"{one.recipe}/{kind}/{cell}") for kind in ("verify", "evaluate"))
        miou, change = _miou(run, evaluated)
        latency = latencies.get((one.recipe, str(one.target), str(one.precision)))
        table.add_row(
            escape(one.recipe),
            str(one.target),
            str(one.precision),
            _size(one),
            miou,
            change,
            "-" if latency is None else f"{1000 * latency:.2f} ms",
            *(escape(_state(result)) for result in (one, verified, evaluated)),
            style="bold red" if any(_bad(result) for result in (one, verified, evaluated)) else None,
        )
    return table


def _others(run: PipelineRun) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Other stages", title_justify="left")
    table.add_column("stage")
    table.add_column("result", overflow="fold")
    table.add_column("took", justify="right")
    for one in run.stages:
        if one.kind not in (StageKind.EXPORT, StageKind.VERIFY, StageKind.EVALUATE):
            took = f"{one.seconds:.1f} s" if one.outcome.passed else "-"
            table.add_row(escape(one.stage), escape(_state(one)), took, style="bold red" if _bad(one) else None)
    return table


def _bad(result: StageResult | None) -> bool:
    return result is not None and result.outcome in (Outcome.FAILED, Outcome.NOT_RUN)


def _state(result: StageResult | None) -> str:
    """Return what became of a stage in a few words; the first line of why it did not pass."""
    if result is None:
        return "-"
    reason = result.reason.strip().splitlines()
    return f"{result.outcome}: {reason[0]}" if reason else str(result.outcome)


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
                if one["samples_s"]:
                    key = (result.recipe, str(one["target"]), str(one["precision"]))
                    yield key, statistics.median(one["samples_s"])


def _records(run: PipelineRun, result: StageResult | None) -> Iterator[dict[str, Any]]:
    """Yield the bodies of the records that a stage wrote."""
    for one in result.outputs if result is not None and result.outcome.passed else ():
        yield json.loads((run.output_dir / one.path).read_bytes())["body"]
