"""``deploykit bench``: latency of exported files on this machine, several of them interleaved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from deploykit.latency_records import Benchmark, Latency


def bench(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="ARTIFACT", help="Exported files, or folders that hold them.", show_default=False),
    ] = None,
    *,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help="Where to look without ARTIFACT; artifacts if not given."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Measure this recipe in PyTorch eager too; without ARTIFACT, only its files."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of every runtime.")] = 1,
    runs: Annotated[int, typer.Option("--runs", help="At least so many runs of each.")] = 50,
    seconds: Annotated[float, typer.Option("--seconds", help="At least so many seconds of runs of each.")] = 1.0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the record beside each measured artifact and into its manifest.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record with all samples.")] = False,
) -> None:
    """Measure the latency of exported files on this machine, interleaved.

    Without ARTIFACT those in the output folder are taken; where there are none, the default recipe is exported into
    a temporary folder and measured beside PyTorch eager.
    """
    from deploykit.benchmark import bench as measure
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.records import versioned

    with progress("bench") as say:
        result = measure(
            artifacts or (),
            output_dir=output_dir,
            recipe=recipe,
            threads=threads,
            runs=runs,
            seconds=seconds,
            report=say,
        )
    console = stderr_console()
    if keep:
        kept = _keep(artifacts or (), output_dir, result)
        console.print(f"kept beside {kept} artifact{'' if kept == 1 else 's'}", markup=False)
    console.print(_how(result, threads, runs, seconds), markup=False)
    if as_json:
        print_json(versioned("bench", _body(result)))
    else:
        stdout_console().print(_table(result))


def _keep(paths: Sequence[Path], output_dir: Path | None, result: Benchmark) -> int:
    """Write ``result`` beside the artifacts that it measured; return how many there are."""
    from deploykit.latency.subjects import find_subjects
    from deploykit.pipeline import DEFAULT_FOLDER
    from deploykit.provenance.measurements import keep_measurements

    folder = output_dir or DEFAULT_FOLDER
    subjects = find_subjects(paths or [folder]) if paths or folder.is_dir() else ()
    return len(keep_measurements((one.artifact for one in subjects if one.artifact), result))


def _how(result: Benchmark, threads: int, runs: int, seconds: float) -> str:
    from deploykit.latency.machine import device_name, usable_cores
    from deploykit.latency.measure import WARMUP_RUNS, WARMUP_SECONDS

    plural = "" if threads == 1 else "s"
    together = "interleaved one run at a time in shuffled order" if len(result.measured) > 1 else "alone"
    text = (
        f"{device_name()}: {threads} thread{plural}, warm-up {WARMUP_SECONDS} s and {WARMUP_RUNS} runs or more, then "
        f"{runs} runs and {seconds:g} s or more each, {together}."
    )
    if threads > usable_cores():
        text += f" More threads than the {usable_cores()} usable cores: the figures are those of a crowded machine."
    return text


def _body(result: Benchmark) -> dict[str, Any]:
    from deploykit.records import to_json

    body: dict[str, Any] = to_json(result)
    for row, latency in zip(body["measured"], result.measured, strict=True):
        row.update(median_s=latency.median_s, p90_s=latency.p90_s, runs=len(latency.samples_s))
    return body


def _table(result: Benchmark) -> Table:
    from rich.markup import escape
    from rich.table import Table

    measured = result.measured
    first = measured[0]
    table = Table(
        title="Latency of one inference",
        title_justify="left",
        caption=f"ratio: median time over that of {escape(first.artifact)}, in this same run",
        caption_justify="left",
    )
    table.add_column("artifact", overflow="fold")
    table.add_column("target")
    table.add_column("precision")
    for name in ("size", "median ms", "p90 ms", "runs", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("runtime", overflow="fold")
    for latency in measured:
        table.add_row(*(escape(cell) for cell in _cells(latency, first)))
    for skip in result.skipped:
        table.add_row(escape(skip.artifact), *["-"] * 7, escape(f"skipped: {skip.reason}"))
    return table


def _cells(latency: Latency, first: Latency) -> tuple[str, ...]:
    return (
        latency.artifact,
        str(latency.target or "-"),
        str(latency.precision or "-"),
        "-" if latency.size_bytes is None else f"{latency.size_bytes / 1000:.0f} kB",
        f"{latency.median_s * 1000:.3f}",
        f"{latency.p90_s * 1000:.3f}",
        str(len(latency.samples_s)),
        f"{latency.median_s / first.median_s:.2f}",
        latency.runtime,
    )
