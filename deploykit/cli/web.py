"""``deploykit web``: exported files in a browser, live and measured, here or on a phone of the network."""

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
    from deploykit.latency_records import Benchmark
    from deploykit.web.plan import PagePlan
    from deploykit.web.runs import BrowserRun


def web(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="ARTIFACT",
            help="TFLite and ONNX files that deploykit export wrote, their manifest beside them, or folders of such; "
            "artifacts if not given.",
            show_default=False,
        ),
    ] = None,
    *,
    lan: Annotated[
        bool, typer.Option("--lan", help="Let one device of the network in, such as a phone: over TLS, with a token.")
    ] = False,
    address: Annotated[
        str | None,
        typer.Option(
            "--address", help="With --lan: the address of this machine that the device reaches.", show_default=False
        ),
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port to listen on; 0 for a free one.")] = 0,
    timeout: Annotated[
        float | None, typer.Option("--timeout", help="Stop after so many seconds; Ctrl-C if not given.")
    ] = None,
    threads: Annotated[
        str, typer.Option("--threads", help="Threads of WebAssembly in the benchmark; 1,2 measures each number.")
    ] = "1",
    accelerator: Annotated[
        list[str] | None,
        typer.Option("--accelerator", help="wasm, webgpu or webnn; several times for several; wasm if not given."),
    ] = None,
    runs: RunsOption = 50,
    seconds: SecondsOption = 1.0,
    precision_target: PrecisionTargetOption = "2%",
    max_seconds: MaxSecondsOption = 10.0,
    export: Annotated[
        Path | None,
        typer.Option("--export", help="Write the page as static files into this new folder, and serve nothing."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            "--record",
            help="Take a benchmark that the page of these artifacts saved as a file, and serve nothing.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write each benchmark to the results, by machine; see deploykit results.")
    ] = False,
    results_dir: ResultsDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record with all benchmarks.")] = False,
) -> None:
    """Serve a page that runs exported files in a browser, on the camera and in a benchmark.

    Without --lan this machine alone reaches it. With it, the certificate is valid as long as --timeout says and an hour
    more to either side, a day in all at most. Benchmarks of the page come back here, and are printed at the end; once
    the command has ended, or was never there, the page saves them as a file for --record.
    """
    from deploykit.cli.console import progress, stderr_console
    from deploykit.errors import UsageError
    from deploykit.latency.argument_texts import parse_share, parse_threads
    from deploykit.latency.measure import Protocol, check_plan
    from deploykit.latency.subjects import find_subjects
    from deploykit.pipeline import DEFAULT_FOLDER
    from deploykit.web import require_packages

    require_packages()
    from deploykit.web.export import export_page
    from deploykit.web.measure import require_accelerators
    from deploykit.web.plan import make_page_plan

    _require("--address", address is None or lan, "--lan beside it")
    _require("--results-dir", results_dir is None or save, "--save beside it")
    _require("--export", export is None or not (lan or save), "neither --lan nor --save beside it: nothing is served")
    _require("--record", record is None or not (lan or export), "neither --lan nor --export: nothing is served")
    if timeout is not None and not timeout > 0:
        raise UsageError(
            "The value is out of range.",
            where="--timeout",
            found=f"{timeout:g}",
            expected="more than 0 seconds",
            next_step="leave it out to serve until Ctrl-C",
        )
    counts, target = parse_threads(threads), parse_share(precision_target)
    for count in counts:
        check_plan(count, runs, seconds, max_seconds, target)
    require_accelerators(accelerator or ())
    paths = artifacts or [DEFAULT_FOLDER]
    if not artifacts and not DEFAULT_FOLDER.is_dir():
        raise UsageError(
            "There is nothing to show.",
            found=f"no ARTIFACT, and no folder {DEFAULT_FOLDER}",
            expected="exported files",
            next_step="deploykit export sinet --target tflite --target onnx",
        )
    if record is not None:
        from deploykit.web.kept import benchmark_of, read_kept

        kept = read_kept(record)
        _finish((benchmark_of(kept, find_subjects(paths), record),), save, results_dir, as_json)
        return
    protocol = Protocol(min_runs=runs, min_seconds=seconds, max_seconds=max_seconds, precision_target=target)
    with progress("web") as say:
        plan = make_page_plan(
            find_subjects(paths),
            protocol,
            threads=counts,
            accelerators=tuple(accelerator or ("wasm",)),
            reports=export is None,
            report=say,
        )
    console = stderr_console()
    for one in plan.skipped:
        console.print(f"left out: {one.artifact}: {one.reason}", markup=False)
    if export is not None:
        size = export_page(plan, export)
        console.print(f"{export}: {size / 1e6:.1f} MB of static files", markup=False)
        console.print(
            "Threads need the headers Cross-Origin-Opener-Policy: same-origin and "
            "Cross-Origin-Embedder-Policy: require-corp; cameras need https.",
            markup=False,
        )
        return
    _finish(_serve(plan, lan=lan, address=address, port=port, timeout=timeout), save, results_dir, as_json)


def _finish(found: tuple[Benchmark, ...], save: bool, results_dir: Path | None, as_json: bool) -> None:
    """Save ``found`` where that was asked for, and print it."""
    if save:
        _save(found, results_dir)
    if as_json:
        from deploykit.cli.bench_table import body
        from deploykit.cli.console import print_json
        from deploykit.records import versioned

        print_json(versioned("web", {"benchmarks": [body(one) for one in found]}))
    else:
        _print(found)


def _require(option: str, fits: bool, expected: str) -> None:
    from deploykit.errors import UsageError

    if not fits:
        raise UsageError("The options do not go together.", where=option, expected=expected)


def _serve(
    plan: PagePlan, *, lan: bool, address: str | None, port: int, timeout: float | None
) -> tuple[Benchmark, ...]:
    """Serve ``plan`` until Ctrl-C or ``timeout``; return what pages measured."""
    import asyncio

    from deploykit.cli.console import stderr_console
    from deploykit.web.access import Door, new_token
    from deploykit.web.address import lan_address, qr_text
    from deploykit.web.certificate import make_certificate
    from deploykit.web.runs import Runs
    from deploykit.web.server import Place, serving

    console = stderr_console()
    kept: list[Runs] = []

    async def until_stopped() -> None:
        place, door, certificate = Place(port=port), Door(), None
        token = ""
        if lan:
            place, token = Place(lan_address(address), port), new_token()
            door, certificate = Door(token), make_certificate(place.address, timeout)
        async with serving(plan, place, door, certificate) as server:
            kept.append(server.runs)
            server.runs.changed = _announced
            url = server.url + (f"#{token}" if token else "")
            if certificate is not None:
                console.print(qr_text(url), markup=False, soft_wrap=True)
                console.print(
                    "One device is let in. Its browser warns of the certificate, which was made for this run and is "
                    f"valid until {certificate.ends:%Y-%m-%d %H:%M} UTC;",
                    markup=False,
                    soft_wrap=True,
                )
                console.print(f"its SHA-256 is {certificate.fingerprint}", markup=False, soft_wrap=True)
            console.print(f"open {url}", markup=False, soft_wrap=True)
            console.print("Ctrl-C stops it." if timeout is None else f"It stops after {timeout:g} s, or by Ctrl-C.")
            await asyncio.sleep(timeout) if timeout is not None else await asyncio.Event().wait()

    try:
        asyncio.run(until_stopped())
    except KeyboardInterrupt:
        console.print("stopped")
    return tuple(run.benchmark() for runs in kept for run in runs.all())


def _announced(run: BrowserRun) -> None:
    from deploykit.cli.console import stderr_console

    if run.over:
        stderr_console().print(f"a benchmark of the page ended, with {run.samples} samples", markup=False)


def _save(found: tuple[Benchmark, ...], folder: Path | None) -> None:
    from deploykit.cli.console import stderr_console
    from deploykit.results.store import FOLDER, save_run

    for one in found:
        if one.measured:
            stderr_console().print(f"saved as {save_run(one, folder or FOLDER)}", markup=False)


def _print(found: tuple[Benchmark, ...]) -> None:
    from deploykit.cli.bench_table import sentences, tables
    from deploykit.cli.console import stderr_console, stdout_console
    from deploykit.latency.machine import device_name

    for one in found:
        stderr_console().print(f"{device_name(one.machine)}, {one.started}", markup=False)
        for table in tables(one):
            stdout_console().print(table)
        for sentence in sentences(one):
            stderr_console().print(sentence, markup=False)
