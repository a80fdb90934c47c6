"""What ``deploykit bench`` prints: tables of steady state, start, steps and operations, and sentences about them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.latency.statistics import Summary
    from deploykit.latency_records import Benchmark, Latency, Startup

MOST_OPERATIONS = 15
_SHORT = {"precision reached": "precise", "runs done": "runs", "time is up": "time is up", "interrupted": "interrupted"}


def tables(result: Benchmark) -> Iterator[Table]:
    """Yield the tables of ``result``; nothing where nothing was measured or skipped."""
    if result.measured or result.skipped:
        yield _steady(result)
    if result.measured:
        yield _spread(result)
    if any(latency.startup is not None for latency in result.measured):
        yield _startup(result)
    if any(latency.steps for latency in result.measured):
        yield _steps(result)
    for latency in result.measured:
        if latency.operations:
            yield _operations(latency)


def body(result: Benchmark) -> dict[str, Any]:
    """Return ``result`` as JSON, with the figures that follow from the samples."""
    from deploykit.latency.statistics import summarise
    from deploykit.records import to_json

    found: dict[str, Any] = to_json(result)
    for row, latency in zip(found["measured"], result.measured, strict=True):
        summary = summarise(latency, result.conditions)
        row.update(
            median_s=summary.median_s,
            runs=summary.runs,
            mad_s=summary.mad_s,
            fps=summary.fps,
            interval_reach=summary.precision,
            outliers=[to_json(one) for one in summary.outliers],
            humps=[to_json(one) for one in summary.humps],
            preempted=latency.preempted,
            **{f"p{percent}_s": value for percent, value in summary.percentiles_s.items()},
        )
    return found


def sentences(result: Benchmark) -> Iterator[str]:
    """Yield what else is to be known: outliers and why, what was not stable, warnings with their remedies."""
    from deploykit.latency.machine import share_of_runs
    from deploykit.latency.statistics import summarise
    from deploykit.latency_records import PREEMPTED

    for latency in result.measured:
        summary = summarise(latency, result.conditions)
        if summary.outliers:
            yield f"{_named(latency, result)}: {_outliers(summary)}"
        if (latency.preempted or 0.0) > PREEMPTED:
            share = share_of_runs(latency.preempted or 0.0)
            yield (
                f"{_named(latency, result)}: other programs had the core during {share}; their time is taken off, and "
                "what they left in the caches is not: end them and measure again"
            )
        if summary.humps:
            low, high = summary.humps
            yield (
                f"{_named(latency, result)}: the runs lie in two humps, {low.share:.0%} around {_ms(low.median_s)} ms "
                f"and {high.share:.0%} around {_ms(high.median_s)} ms, and one median does not describe them: something"
                " changed meanwhile; measure again with nothing else running, and longer (--seconds)"
            )
        if latency.warm is False:
            yield f"{_named(latency, result)}: the running median was not steady yet when the warm-up ended"
        yield from (f"{_named(latency, result)}: {note}" for note in latency.notes)
    for warning in result.warnings:
        yield f"warning: {warning.problem}; {warning.remedy}"
    if not result.complete and result.ended:
        yield f"ended early: {result.ended}; this is what was measured until then"


def _outliers(summary: Summary) -> str:
    slow = max(one.seconds for one in summary.outliers)
    reasons = "; ".join(f"{count}: {reason}" for reason, count in summary.reasons().items())
    share = len(summary.outliers) / summary.runs
    return (
        f"{len(summary.outliers)} of {summary.runs} runs ({share:.1%}) are far out of line, "
        f"up to {slow / summary.median_s:.1f} medians, and kept ({reasons})"
    )


def _named(latency: Latency, result: Benchmark) -> str:
    threads = {one.threads for one in result.measured}
    return latency.artifact if len(threads) == 1 else f"{latency.artifact}, {_threads(latency.threads)}"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _table(title: str, caption: str = "") -> Table:
    from rich.table import Table

    return Table(title=title, title_justify="left", caption=caption or None, caption_justify="left")


def _steady(result: Benchmark) -> Table:
    from rich.markup import escape

    from deploykit.latency.statistics import summarise

    measured = result.measured
    several = len({latency.threads for latency in measured}) > 1
    end_to_end = any(latency.steps for latency in measured)
    title = "Latency from a photo to the composite" if end_to_end else "Latency of one inference"
    caption = ""
    if measured:
        caption = f"ratio: median time over that of {escape(measured[0].artifact)}, measured in turn with it; "
        caption += "every number of threads runs on its own; " if several else ""
        caption += "±: reach of the 95 % interval of the median; ended: the reason, where precise is "
        caption += "an interval as narrow as asked for, and runs are as many as asked for"
    table = _table(title, caption)
    table.add_column("artifact", overflow="fold")
    texts = ("target", "precision")
    numbers = ("size", "median ms", "±", "FPS", "runs", "ratio")
    for name in texts:
        table.add_column(name)
    if several:
        table.add_column("threads", justify="right")
    for name in numbers:
        table.add_column(name, justify="right")
    table.add_column("ended")
    table.add_column("runtime", overflow="fold")
    for latency in measured:
        first = next(one for one in measured if one.threads == latency.threads)
        cells = _cells(latency, first, summarise(latency))
        if several:
            cells.insert(3, str(latency.threads))
        table.add_row(*(escape(cell) for cell in cells))
    blanks = len(texts) + several + len(numbers) + 1
    for skip in result.skipped:
        table.add_row(escape(skip.artifact), *["-"] * blanks, escape(f"skipped: {skip.reason}"))
    return table


def _cells(latency: Latency, first: Latency, summary: Summary) -> list[str]:
    return [
        latency.artifact,
        str(latency.target or "-"),
        str(latency.precision or "-"),
        "-" if latency.size_bytes is None else f"{latency.size_bytes / 1000:.0f} kB",
        _ms(summary.median_s),
        "-" if summary.precision is None else f"{summary.precision:.1%}",
        f"{summary.fps:.1f}",
        str(summary.runs),
        f"{summary.median_s / first.median_s:.2f}" if first.median_s else "-",
        _ended(latency, summary),
        latency.runtime,
    ]


def _ended(latency: Latency, summary: Summary) -> str:
    from deploykit.latency_records import PREEMPTED

    marks = (("preempted", (latency.preempted or 0.0) > PREEMPTED), ("two humps", bool(summary.humps)))
    return ", ".join([_SHORT.get(str(latency.stopped), "-"), *(mark for mark, holds in marks if holds)])


def _spread(result: Benchmark) -> Table:
    from rich.markup import escape

    from deploykit.latency.statistics import summarise

    table = _table("Spread of the runs", "MAD: median absolute deviation; outliers are kept in every figure")
    table.add_column("artifact", overflow="fold")
    for name in ("fastest ms", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "slowest ms", "MAD ms", "outliers"):
        table.add_column(name, justify="right")
    for latency in result.measured:
        summary = summarise(latency)
        # Of ten runs the 99th percentile is the slowest one, which stands beside it.
        middle = (
            _ms(one) if summary.runs * (100 - percent) >= 100 else "-" for percent, one in summary.percentiles_s.items()
        )
        ends = (_ms(max(latency.own_s)), _ms(summary.mad_s))
        cells = (_named(latency, result), _ms(min(latency.own_s)), *middle, *ends, str(len(summary.outliers)))
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _startup(result: Benchmark) -> Table:
    from rich.markup import escape

    started = [(latency, latency.startup) for latency in result.measured if latency.startup is not None]
    warm = any(not startup.cold_cache for _, startup in started)
    if all(latency.driver == "browser" for latency, _ in started):
        caption = "each in a worker of its own; process start: from there until the runtime can open a file"
    else:
        caption = "starts: processes of their own, whose median this is, ±: how far they reach; "
        caption += "memory: resident, at its highest, above that before the file was opened"
    if warm:
        caption += "; *: the file could not be put out of the page cache"
    table = _table("Until the first result", caption)
    table.add_column("artifact", overflow="fold")
    for name in ("starts", "process start ms", "cold load ms", "warm load ms", "first inference ms", "peak memory MB"):
        table.add_column(name, justify="right")
    for latency, startup in started:
        table.add_row(escape(_named(latency, result)), *_startup_cells(startup))
    return table


def _startup_cells(startup: Startup) -> tuple[str, ...]:
    memory = startup.peak_memory_bytes
    return (
        str(startup.starts),
        _start_cell(startup, "process_s"),
        _start_cell(startup, "cold_load_s")
        + (" *" if startup.cold_load_s is not None and not startup.cold_cache else ""),
        _start_cell(startup, "warm_load_s"),
        _start_cell(startup, "first_inference_s"),
        "-" if memory is None else f"{memory / 1e6:.1f}",
    )


def _start_cell(startup: Startup, figure: str) -> str:
    seconds, reach = getattr(startup, figure), startup.reach(figure)
    if seconds is None:
        return "-"
    return _ms(seconds) if reach is None else f"{_ms(seconds)} ±{reach:.0%}"


def _steps(result: Benchmark) -> Table:
    from rich.markup import escape

    names = list(dict.fromkeys(name for latency in result.measured for name in latency.steps))
    table = _table("Steps, mean ms", "as deploykit run takes them, in Python; reading the photo from disk is no part")
    table.add_column("artifact", overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    for latency in result.measured:
        cells = (_ms(latency.steps[name]) if name in latency.steps else "-" for name in names)
        table.add_row(escape(_named(latency, result)), *cells)
    return table


def _operations(latency: Latency) -> Table:
    from rich.markup import escape

    whole = sum(one.seconds for one in latency.operations) or 1.0
    shown = latency.operations[:MOST_OPERATIONS]
    rest = len(latency.operations) - len(shown)
    caption = f"{_ms(whole)} ms in {len(latency.operations)} operations while it was profiled, which costs time itself"
    if rest:
        caption += f"; {rest} more take {sum(one.seconds for one in latency.operations[MOST_OPERATIONS:]) / whole:.1%}"
    table = _table(f"Operations of {escape(latency.artifact)}, {_threads(latency.threads)}, the longest first", caption)
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    table.add_column("operation")
    table.add_column("name", overflow="fold")
    table.add_column("modules", overflow="fold")
    for one in shown:
        modules = ", ".join(one.modules) or "-"
        row = (_ms(one.seconds), f"{one.seconds / whole:.1%}", one.operation, one.name, modules)
        table.add_row(*(escape(cell) for cell in row))
    return table


def _ms(seconds: float) -> str:
    """Return ``seconds`` in milliseconds with four digits that count."""
    value = seconds * 1000
    return f"{value:.3f}" if value < 10 else f"{value:.2f}" if value < 100 else f"{value:.1f}"
