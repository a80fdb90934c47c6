"""``deploykit quantization-report``: all precisions of one network on all targets, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from deploykit.cli.options import (
    CheckpointKeyOption,
    CheckpointOption,
    JsonOption,
    RecipeArgument,
    SizeOption,
    VerboseOption,
    load_network_at,
    parse_size,
    require_known,
    split_names,
)
from deploykit.cli.quantization_options import CalibrationImagesOption, CalibrationOption, MaxDropOption
from deploykit.errors import EXIT_FAILED
from deploykit.vocab import Precision, Target

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.evaluation.records import Summary
    from deploykit.quantization_report import Cell, QuantizationReport

Choice = TypeVar("Choice", Target, Precision)
METRICS = {
    "two_class_miou": "mIoU",
    "boundary_f1": "boundary F1",
    "edge_iou": "edge IoU",
    "flicker": "flicker",
}


def quantization_report(
    recipe: RecipeArgument = None,
    *,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--targets", "--target", metavar="TARGET", help="Only these; several with commas.", show_default="all"
        ),
    ] = None,
    precisions: Annotated[
        list[str] | None,
        typer.Option(
            "--precisions",
            "--precision",
            metavar="PRECISION",
            help="Only these; several with commas.",
            show_default="all",
        ),
    ] = None,
    size: SizeOption = None,
    held_out: Annotated[
        int, typer.Option("--held-out", min=1, max=128, help="Judge on so many held-out portraits.")
    ] = 32,
    calibration: CalibrationOption = None,
    calibration_images: CalibrationImagesOption = 32,
    max_drop: MaxDropOption = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", help="Keep the files here.", show_default="a temporary folder")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Threads of every runtime.")] = 1,
    runs: Annotated[int, typer.Option("--runs", help="Time at least so many runs of each file.")] = 50,
    seconds: Annotated[float, typer.Option("--seconds", help="At least so many seconds of runs of each.")] = 1.0,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE", help="Draw both trades, as .svg or .png.", show_default=False),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show bytes, masks and latency of one network in all precisions on all targets, with the Pareto fronts marked.

    Every possible file is made, run, judged on held-out portraits against the checkpoint, and timed on this machine,
    interleaved with the others. Beside each int8 file stands one with a quantizer's usual settings: ranges from the
    smallest to the largest value, nothing equalized, corrected or left in float. A file on a front (size, speed) is one
    that no other file beats: at least its mIoU with fewer bytes, or in less time. Files that stay in --output-dir have
    their evaluation beside them. A cell that fails stops no other; the exit code is then 1.
    """
    import traceback

    from deploykit.artifact import require_writable
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.lowering import MAX_DROP
    from deploykit.provenance.measurements import keep_measurements
    from deploykit.quantization_report import quantization_report as measure
    from deploykit.quantize.calibration import calibration_set
    from deploykit.records import versioned
    from deploykit.report.quantization_chart import check_picture, write_chart

    chosen_targets, chosen_precisions = (
        _chosen("--targets", targets, Target),
        _chosen("--precisions", precisions, Precision),
    )
    parsed = parse_size(size)
    if output_dir is not None:
        require_writable(output_dir)
    if picture is not None:
        check_picture(picture)
    causes: list[str] = []

    def failed(cell: Cell, error: Exception) -> None:
        causes.append(f"{cell.target} {cell.precision}\n{''.join(traceback.format_exception(error))}")

    with progress("quantization-report") as say:
        say("loading the checkpoint")
        network = load_network_at(parsed, recipe, checkpoint, checkpoint_key)
        say("reading the calibration images")
        images = calibration_set(network.recipe, calibration, calibration_images)
        found = measure(
            network,
            images,
            targets=chosen_targets,
            precisions=chosen_precisions,
            held_out=held_out,
            max_drop=MAX_DROP if max_drop is None else max_drop,
            output_dir=output_dir,
            threads=threads,
            runs=runs,
            seconds=seconds,
            step=say,
            failed=failed,
            keep=None if output_dir is None else keep_measurements,
        )
        if picture is not None:
            write_chart(found, picture)
    console = stderr_console()
    for note in (*network.notes, *found.notes):
        console.print(f"note: {note}", markup=False)
    if as_json:
        print_json(versioned("quantization-report", _body(found)))
    else:
        results = stdout_console()
        results.print(_made(found))
        if any(one.figures is None for one in found.cells):
            results.print(_not_made(found))
    for one in found.failed:
        console.print(f"deploykit: error: {one.target} {one.precision}: {one.reason}", markup=False)
    if verbose:
        for cause in causes:
            console.print(cause, markup=False, soft_wrap=True)
    if found.failed:
        raise typer.Exit(EXIT_FAILED)


def _chosen(option: str, given: list[str] | None, kind: type[Choice]) -> tuple[Choice, ...]:
    if given is None:
        return tuple(kind)
    names = split_names(given)
    require_known(names, tuple(kind), option, f"There is no such {kind.__name__.lower()}.")
    return tuple(one for one in kind if one in names)


def _body(found: QuantizationReport) -> dict[str, Any]:
    from deploykit.records import to_json

    body: dict[str, Any] = to_json(found)
    for row, cell in zip(body["cells"], found.cells, strict=True):
        if cell.figures is not None:
            row["figures"]["miou"] = cell.figures.miou
            row["figures"]["median_s"] = None if cell.figures.latency is None else cell.figures.latency.median_s
    return body


def _made(found: QuantizationReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    source = f"calibrated on {found.calibration.images} images: {found.calibration.source}"
    table = Table(
        title=escape(f"{found.recipe} in all precisions, on {found.held_out} held-out portraits; {source}"),
        title_justify="left",
        caption="In brackets: points more or less than the checkpoint. Smaller flicker is better. Weights: bytes of "
        "their fp32 bytes.",
        caption_justify="left",
    )
    for name in ("target", "precision", "settings"):
        table.add_column(name, overflow="fold")
    for name in ("kB", "weights", *METRICS.values(), "ms"):
        table.add_column(name, justify="right")
    table.add_column("front")
    table.add_row("checkpoint", "-", "-", "-", "-", *_metrics(found.checkpoint), "-", "")
    last = None
    for cell in found.cells:
        if cell.figures is not None:
            if cell.target is not last:
                table.add_section()
            last = cell.target
            table.add_row(*_cells(cell))
    return table


def _cells(cell: Cell) -> tuple[str, ...]:
    figures = cell.figures
    assert figures is not None
    fronts = [name for name, on_it in (("size", figures.smallest), ("speed", figures.fastest)) if on_it]
    return (
        cell.target.value,
        cell.precision.value,
        _settings(cell),
        f"{figures.size_bytes / 1000:.0f}",
        f"{figures.weight_share:.1%}",
        *_metrics(figures.summaries),
        "-" if figures.latency is None else f"{figures.latency.median_s * 1000:.2f}",
        ", ".join(fronts),
    )


def _settings(cell: Cell) -> str:
    """Return how the ranges of a file were chosen, in a few words."""
    if cell.defaults:
        return "defaults"
    made = cell.figures.quantization if cell.figures else None
    if made is None or made.estimator is None:
        return "-"
    words = [made.estimator.value]
    words += [f"equalized {made.equalization:g}"] if made.equalization else []
    words += [f"{len(made.kept)} in float"] if made.kept else []
    return ", ".join(words)


def _metrics(summaries: tuple[Summary, ...]) -> tuple[str, ...]:
    cells = []
    for metric in METRICS:
        one = next((one for one in summaries if one.metric == metric), None)
        if one is None or one.estimate is None:
            cells.append("-")
            continue
        change = "" if one.difference is None else f" ({100 * one.difference.value:+.2f})"
        cells.append(f"{one.estimate.value:.4f}{change}")
    return tuple(cells)


def _not_made(found: QuantizationReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Not made", title_justify="left")
    for name in ("target", "precision", "why", "reason", "nearest"):
        table.add_column(name, overflow="fold")
    for one in found.cells:
        if one.figures is None:
            precision = f"{one.precision}, defaults" if one.defaults else one.precision.value
            table.add_row(one.target.value, precision, one.state.value, escape(one.reason), one.nearest or "-")
    return table
