"""``deploykit bench``: latency of exported files on this machine, several of them interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.latency.subjects import Subject
    from deploykit.network import LoadedNetwork
    from deploykit.recipe import Recipe
    from deploykit.records import Benchmark, Latency, SkippedLatency

DEFAULT_FOLDER = Path("artifacts")


def bench(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[ARTIFACT]...", help="Exported files, or folders that hold them.", show_default=False),
    ] = None,
    *,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", "-o", help=f"Where to look without ARTIFACT; {DEFAULT_FOLDER} if not given."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="Measure this recipe in PyTorch eager too; without ARTIFACT, only its files."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of every runtime.")] = 1,
    runs: Annotated[int, typer.Option("--runs", help="At least so many runs of each.")] = 50,
    seconds: Annotated[float, typer.Option("--seconds", help="At least so many seconds of runs of each.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record with all samples.")] = False,
) -> None:
    """Measure the latency of exported files on this machine, interleaved.

    Without ARTIFACT those in the output folder are taken; where there are none, the default recipe is exported into
    a temporary folder and measured beside PyTorch eager.
    """
    from deploykit.latency.measure import check_plan
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.records import versioned

    check_plan(threads, runs, seconds)
    with progress("bench") as say:
        result = _measured(artifacts or [], output_dir, recipe, (threads, runs, seconds), say)
    console = stderr_console()
    console.print(_how(result, threads, runs, seconds), markup=False)
    if as_json:
        print_json(versioned("bench", _body(result)))
    else:
        stdout_console().print(_table(result))


def _measured(
    paths: list[Path],
    output_dir: Path | None,
    recipe_name: str | None,
    plan: tuple[int, int, float],
    say: Callable[[str], None],
) -> Benchmark:
    from dataclasses import replace

    from deploykit.latency.drivers.host import measure_on_host
    from deploykit.latency.subjects import find_subjects
    from deploykit.errors import UsageError
    from deploykit.recipe import default_recipe, load_recipe

    if paths and output_dir is not None:
        raise UsageError(
            "ARTIFACT and --output-dir do not go together.",
            found=f"{', '.join(map(str, paths))} and {output_dir}",
            expected="files to measure, or the folder to look for them in",
        )
    recipe = load_recipe(recipe_name) if recipe_name else None
    subjects = find_subjects(paths) if paths else _found(output_dir, recipe)
    threads, runs, seconds = plan
    with tempfile.TemporaryDirectory(prefix="deploykit-bench-") as folder:
        skipped: tuple[SkippedLatency, ...] = ()
        network = None
        if recipe is not None or not subjects:
            recipe = recipe or load_recipe(default_recipe(Path.cwd()))
            network = _network(recipe, say)
            if not subjects:
                say(f"nothing of {recipe.name} in {output_dir or DEFAULT_FOLDER}: exporting it")
                subjects, skipped = _exported(network, Path(folder), say)
        result = measure_on_host(
            subjects,
            network=network,
            recipe=recipe,
            threads=threads,
            min_runs=runs,
            min_seconds=seconds,
            report=say,
        )
    return replace(result, skipped=(*result.skipped, *skipped))


def _found(output_dir: Path | None, recipe: Recipe | None) -> tuple[Subject, ...]:
    from deploykit.artifact import find_artifacts
    from deploykit.latency.subjects import exported_subjects
    from deploykit.errors import UsageError

    if output_dir is not None and not output_dir.is_dir():
        raise UsageError(
            "The output folder cannot be read.",
            where=str(output_dir),
            found="a file" if output_dir.exists() else "nothing",
            expected="a folder with what deploykit export wrote",
        )
    artifacts = find_artifacts(output_dir or DEFAULT_FOLDER)
    return exported_subjects(one for one in artifacts if recipe is None or one.recipe == recipe.name)


def _network(recipe: Recipe, say: Callable[[str], None]) -> LoadedNetwork:
    from deploykit.network import load_network

    say(f"loading the network of {recipe.name}")
    return load_network(recipe)


def _exported(
    network: LoadedNetwork, folder: Path, say: Callable[[str], None]
) -> tuple[tuple[Subject, ...], tuple[SkippedLatency, ...]]:
    from deploykit.latency.drivers.host import unmeasurable
    from deploykit.latency.subjects import exported_subjects
    from deploykit.pipeline import export
    from deploykit.records import SkippedLatency
    from deploykit.verify.samples import draw_samples
    from deploykit.vocab import Target

    # What cannot be measured here is not exported for it either.
    reasons = {target: unmeasurable(target) for target in Target}
    targets = [target for target, reason in reasons.items() if not reason]
    skipped = tuple(SkippedLatency(str(target), reason) for target, reason in reasons.items() if reason)
    if not targets:
        return (), skipped
    artifacts = export(network, targets, draw_samples(network.recipe), folder, step=say)
    return exported_subjects(artifacts), skipped


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
