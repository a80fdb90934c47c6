"""``deploykit sensitivity``: what each layer alone costs in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
)
from deploykit.cli.quantization_options import (
    CalibrationImagesOption,
    CalibrationOption,
    EqualizeOption,
    EstimatorOption,
    Switch,
    with_quantization,
)
from deploykit.vocab import Precision, Target

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.quantize.sensitivity import Measured, Sensitivity


def sensitivity(
    recipe: RecipeArgument = None,
    *,
    target: Annotated[Target, typer.Option("--target", help="The target whose file is measured.")],
    precision: Annotated[Precision, typer.Option("--precision", help="The integers: int8 or w8a16.")] = Precision.INT8,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    size: SizeOption = None,
    calibration: CalibrationOption = None,
    calibration_images: CalibrationImagesOption = 32,
    estimator: EstimatorOption = None,
    equalize: EqualizeOption = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers",
            help="Measure so many on the file, the worst as simulated.",
            show_default="all; 10 of a Core ML or Core AI file",
        ),
    ] = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what each layer alone costs in integers, on the real file of one target, the worst first.

    The float file is written once. For each layer it is quantized with all others left in float, run on the judging
    images (a quarter of the calibration images), and compared with the float network. Biases are not corrected: what
    a correction makes up for is the error of all weights at once.
    """
    from deploykit.api import sensitivity as measure
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.lowering import ExportOptions
    from deploykit.records import versioned

    del verbose
    parsed = parse_size(size)
    options = with_quantization(
        ExportOptions(precision=precision),
        estimator=estimator,
        equalize=equalize,
        correct_biases=Switch.OFF,
        max_drop=None,
        integer_io=False,
    )
    with progress("sensitivity") as say:
        say("loading the checkpoint")
        network = load_network_at(parsed, recipe, checkpoint, checkpoint_key)
        found = measure(
            network,
            target=target,
            options=options,
            calibration=calibration,
            calibration_images=calibration_images,
            layers=layers,
            step=say,
        )
    for note in (*network.notes, *found.calibration.notes):
        stderr_console().print(f"note: {note}", markup=False)
    if as_json:
        print_json(versioned("sensitivity", found))
    else:
        stdout_console().print(_table(found))


def _table(found: Sensitivity) -> Table:
    from rich.markup import escape
    from rich.table import Table

    judging = f"{found.calibration.judging} of {found.calibration.images} images: {found.calibration.source}"
    equalized = f", channels equalized by {found.equalization:g}" if found.equalization else ""
    table = Table(
        title=escape(f"Layers of {found.recipe} alone in integers, {found.target} {found.precision}; {judging}"),
        title_justify="left",
        caption=escape(
            f"Ranges by {found.estimator}{equalized}. Points of mIoU lost against the float network, and the SNR left."
        ),
        caption_justify="left",
    )
    table.add_column("layer", overflow="fold")
    for name in ("operations", "mIoU lost", "SNR dB", "simulated dB"):
        table.add_column(name, justify="right")
    for one in found.layers:
        cells = (str(one.operations), *_cells(one.measured), f"{one.simulated_snr_db:.1f}")
        table.add_row(escape(one.layer), *cells)
    table.add_section()
    table.add_row("all layers", str(sum(one.operations for one in found.layers)), *_cells(found.whole), "")
    return table


def _cells(measured: Measured | None) -> tuple[str, str]:
    return ("-", "-") if measured is None else (f"{measured.drop_points:.2f}", f"{measured.snr_db:.1f}")
