"""``deploykit bench``: latency of exported files on this machine, several of them interleaved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import (
    MaxSecondsOption,
    PrecisionTargetOption,
    ResultsDirOption,
    RunsOption,
    SecondsOption,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploykit.latency_records import Benchmark


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
    compiled: Annotated[
        bool, typer.Option("--compile", help="Measure the network in torch.compile as well; needs a C++ compiler.")
    ] = False,
    threads: Annotated[
        str, typer.Option("--threads", help="Threads of every runtime; 1,2 or 1-4 measures each number.")
    ] = "1",
    runs: RunsOption = 50,
    seconds: SecondsOption = 1.0,
    precision_target: PrecisionTargetOption = "2%",
    max_seconds: MaxSecondsOption = 10.0,
    affinity: Annotated[
        str, typer.Option("--affinity", help="Cores to pin to, as in 0,2; auto: idle ones, one a thread; none: do not.")
    ] = "auto",
    startup: Annotated[
        bool, typer.Option("--startup/--no-startup", help="Measure loading, first inference and memory as well.")
    ] = True,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="A photo, or a folder of photos, to run on instead of a portrait.", show_default=False
        ),
    ] = None,
    end_to_end: Annotated[
        bool, typer.Option("--end-to-end", help="Measure preprocessing, inference, mask and composite of a photo.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show the time of each operation, with the PyTorch modules it computes.")
    ] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            help="host, ssh://user@host[:port], adb[:serial], ios[:name] or browser[:lan]; see deploykit devices.",
        ),
    ] = "host",
    accelerator: Annotated[
        list[str] | None,
        typer.Option("--accelerator", help="Of a device, such as cpu, gpu or all; several times for several."),
    ] = None,
    benchmark_model: Annotated[
        Path | None,
        typer.Option(
            "--benchmark-model",
            help="LiteRT's benchmark_model, built for the Android device; DEPLOYKIT_BENCHMARK_MODEL if not given.",
            show_default=False,
        ),
    ] = None,
    remote_python: Annotated[
        str, typer.Option("--remote-python", help="The Python of a machine that is reached by ssh.")
    ] = "python3",
    bootstrap: Annotated[
        bool,
        typer.Option(
            "--bootstrap", help="Where that Python lacks the runtime: install it into a temporary environment."
        ),
    ] = False,
    development_team: Annotated[
        str | None,
        typer.Option(
            "--development-team", help="The Apple team that signs the app for an iPhone or iPad.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Write the record beside each measured artifact and into its manifest.")
    ] = False,
    save: Annotated[
        bool, typer.Option("--save", help="Write the record to the results, by machine; see deploykit results.")
    ] = False,
    results_dir: ResultsDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record with all samples.")] = False,
) -> None:
    """Measure the latency of exported files on this machine, or on another device, interleaved.

    Without ARTIFACT those in the output folder are taken; where there are none, the default recipe is exported into
    a temporary folder and measured beside PyTorch eager.
    """
    from deploykit.cli.bench_table import body, sentences, tables
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.errors import EXIT_FAILED, EXIT_INTERRUPTED, UsageError
    from deploykit.latency.argument_texts import parse_cores, parse_share, parse_threads
    from deploykit.latency.arguments import check_bench
    from deploykit.latency.drivers.options import DeviceOptions, benchmark_model_path
    from deploykit.latency.recording import INTERRUPTED
    from deploykit.records import versioned
    from deploykit.results.store import FOLDER, save_run

    if results_dir is not None and not save:
        raise UsageError("Nothing is saved.", where="--results-dir", expected="--save beside it")
    counts, target, cores = parse_threads(threads), parse_share(precision_target), parse_cores(affinity)
    check_bench(
        artifacts or (),
        output_dir=output_dir,
        recipe=recipe,
        images=images,
        compiled=compiled,
        end_to_end=end_to_end,
        threads=counts,
        runs=runs,
        seconds=seconds,
        max_seconds=max_seconds,
        precision_target=target,
        affinity=cores,
        device=device,
        accelerators=accelerator or (),
    )
    # Only now what takes seconds to import.
    from deploykit.benchmark import bench as measure

    with progress("bench") as say:
        result = measure(
            artifacts or (),
            output_dir=output_dir,
            recipe=recipe,
            compiled=compiled,
            threads=counts,
            runs=runs,
            seconds=seconds,
            max_seconds=max_seconds,
            precision_target=target,
            affinity=cores,
            startup=startup,
            profile=profile,
            images=images,
            end_to_end=end_to_end,
            device=device,
            device_options=DeviceOptions(
                accelerators=tuple(accelerator or ()),
                benchmark_model=benchmark_model_path(benchmark_model),
                bootstrap=bootstrap,
                remote_python=remote_python,
                development_team=development_team,
            ),
            report=say,
        )
    console = stderr_console()
    if keep:
        kept = _keep(artifacts or (), output_dir, result)
        console.print(f"kept beside {kept} artifact{'' if kept == 1 else 's'}", markup=False)
    if save and result.measured:
        console.print(f"saved as {save_run(result, results_dir or FOLDER)}", markup=False)
    console.print(_how(result, runs, seconds, max_seconds, target), markup=False)
    for sentence in sentences(result):
        console.print(sentence, markup=False)
    if as_json:
        print_json(versioned("bench", body(result)))
    else:
        for table in tables(result):
            stdout_console().print(table)
    if not result.complete:
        raise typer.Exit(EXIT_INTERRUPTED if result.ended == INTERRUPTED else EXIT_FAILED)


def _keep(paths: Sequence[Path], output_dir: Path | None, result: Benchmark) -> int:
    """Write ``result`` beside the artifacts that it measured; return how many there are."""
    from deploykit.latency.subjects import find_subjects
    from deploykit.pipeline import DEFAULT_FOLDER
    from deploykit.provenance.measurements import keep_measurements

    folder = output_dir or DEFAULT_FOLDER
    subjects = find_subjects(paths or [folder]) if paths or folder.is_dir() else ()
    return len(keep_measurements((one.artifact for one in subjects if one.artifact), result))


def _how(result: Benchmark, runs: int, seconds: float, max_seconds: float, target: float | None) -> str:
    from deploykit.latency.machine import device_name

    if not result.measured:
        return f"{device_name(result.machine)}: nothing was measured."
    counts = sorted({latency.threads for latency in result.measured})
    threads = f"{' and '.join(map(str, counts))} thread{'' if counts == [1] else 's'}"
    each = len({latency.artifact for latency in result.measured})
    together = "in blocks of runs that take turns in random order" if each > 1 else "alone"
    cores = sorted({latency.affinity for latency in result.measured})
    pinned = "; ".join(", ".join(map(str, one)) for one in cores if one)
    text = f"{device_name(result.machine)}: {threads}, "
    text += (
        f"pinned to core{'' if all(len(one) < 2 for one in cores) else 's'} {pinned}, " if pinned else "not pinned, "
    )
    text += f"warmed up, then {runs} runs and {seconds:g} s or more each, {together}"
    if target is not None:
        text += f", until the median is known to {target:.2%}".replace(".00%", "%")
    return text + f", for {max_seconds:g} s at most."
