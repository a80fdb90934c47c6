"""``deploykit evaluate``: how well networks and exported files cut out portraits, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import CheckpointKeyOption, CheckpointOption, JsonOption, VerboseOption

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.evaluation.records import Estimate, EvaluationRun


def evaluate(
    subjects: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUBJECT", help="Recipes, checkpoints, exported files, or folders of those.", show_default=False
        ),
    ] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="DIR/images and DIR/masks, files of equal names up to the suffix."),
    ] = None,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="So many of the 128 synthetic portraits.", show_default=False)
    ] = None,
    clips: Annotated[int, typer.Option("--clips", help="Generated video clips for the flicker; 0 leaves it out.")] = 8,
    edge_sigma: Annotated[float, typer.Option("--edge-sigma", help="Sigma of the edge IoU, in pixels.")] = 3.0,
    mask_threshold: Annotated[
        float | None,
        typer.Option("--mask-threshold", help="Cut soft mattes at this share of full scale.", show_default=False),
    ] = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Leave out, and list, what of the data cannot be used.")
    ] = False,
    threads: Annotated[int, typer.Option("--threads", help="Threads of every runtime.")] = 1,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure how well networks in PyTorch and exported files cut out portraits, side by side.

    Without SUBJECT the recipe named in ./deploykit.toml is taken, else the default one. All subjects see the same
    images, and the difference to the first one tells what an export costs.

    --data is a folder with images/ and masks/: each image has a mask of the same name up to the suffix (images/ann.jpg,
    masks/ann.png), of the same size, with the levels 0 and 1, or 0 and 255. Everything else in the two folders is
    listed and refused, unless --skip-invalid. Without --data 128 synthetic portraits, which no bundled network was
    trained on, are drawn at each network's input size.

    A mask is brought to the size of the true mask before it is compared. A video network gets its input of a first
    frame for single images, and its own output of the frame before in clips. Clips are always generated: flicker
    needs the true motion.
    """
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.evaluation.evaluate import Options
    from deploykit.evaluation.evaluate import evaluate as measure
    from deploykit.records import versioned

    del verbose
    options = Options(
        samples=samples,
        clips=clips,
        edge_sigma=edge_sigma,
        mask_threshold=mask_threshold,
        skip_invalid=skip_invalid,
        threads=threads,
    )
    with progress("evaluate") as say:
        run = measure(
            *(subjects or ()),
            data=data,
            checkpoint=checkpoint,
            checkpoint_key=checkpoint_key,
            options=options,
            report=say,
        )
    console = stderr_console()
    for note in _notes(run):
        console.print(f"note: {note}", markup=False)
    if as_json:
        print_json(versioned("evaluate", run))
    else:
        results = stdout_console()
        results.print(_subjects(run))
        results.print(_figures(run))


def _notes(run: EvaluationRun) -> list[str]:
    first = run.evaluations[0]
    notes = [f"left out {one.name}: {one.reason}" for one in run.invalid]
    if run.invalid:
        notes.append(f"{len(run.invalid)} of the data left out, {len(first.images)} pairs evaluated")
    sizes = {one.input_size for one in run.evaluations}
    if len(sizes) > 1:
        listed = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        notes.append(f"the inputs have different sizes ({listed}), at which clips and synthetic portraits are drawn")
    return notes


def _subjects(run: EvaluationRun) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="What was evaluated", title_justify="left")
    for column in ("subject", "runtime", "input", "file"):
        table.add_column(column, overflow="fold")
    for one in run.evaluations:
        height, width = one.input_size
        file = "-" if one.path is None else one.path.as_posix()
        table.add_row(escape(one.subject), escape(one.runtime), f"{height}x{width}", escape(file))
    return table


def _figures(run: EvaluationRun) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from deploykit.evaluation.summary import METRICS

    several = len(run.evaluations) > 1
    table = Table(
        title=escape(f"{len(run.evaluations[0].images)} images: {run.data}"),
        title_justify="left",
        caption=_caption(run),
        caption_justify="left",
    )
    table.add_column("metric", overflow="fold")
    table.add_column("subject", overflow="fold")
    for column in ("value", "95 % interval", *(("minus the first", "95 % interval") if several else ())):
        table.add_column(column, justify="right")
    for metric in METRICS:
        rows = [(one, s) for one in run.evaluations for s in one.summaries if s.metric == metric.name]
        for index, (one, summary) in enumerate(rows):
            title = metric.title + (f", {summary.undefined} images without" if summary.undefined else "")
            cells = [*_value(summary.estimate), *(_difference(summary.difference) if several else ())]
            table.add_row(title if index == 0 else "", escape(one.subject), *cells)
        table.add_section()
    return table


def _value(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "-", "-"
    interval = estimate.interval
    return f"{estimate.value:.4f}", "-" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _difference(estimate: Estimate | None) -> tuple[str, str]:
    if estimate is None:
        return "-", "-"
    if estimate.value == 0 and estimate.interval in (None, (0, 0)):
        return "equal", "-"
    interval = estimate.interval
    return f"{estimate.value:+z.6f}", "-" if interval is None else f"{interval[0]:+z.6f} to {interval[1]:+z.6f}"


def _caption(run: EvaluationRun) -> str:
    settings = run.settings
    lines = [
        f"Intervals: {settings.interval_method} bootstrap over images, or clips, {settings.resamples} resamples.",
        f"Edge IoU: PortraitNet, equations 11 and 12, sigma {settings.edge_sigma:g} pixels; blind outside the true "
        "portrait.",
        f"Boundary F1: SINet, section 4, in a band of {settings.boundary_band} x {settings.boundary_band} pixels.",
    ]
    if settings.clip_seeds:
        clips = f"{len(settings.clip_seeds)} generated clips of {settings.clip_frames} frames"
        lines.append(
            f"Flicker, smaller is better: share of pixels whose error changes along the true motion, in {clips}."
        )
    return "\n".join(lines)
