"""Options of precisions with integers: one name, one meaning, one help text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.vocab import Estimator, Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploykit.lowering import ExportOptions
    from deploykit.quantize.calibration import CalibrationSet
    from deploykit.recipe import Recipe


class Switch(StrEnum):
    """Whether something is done."""

    ON = "on"
    OFF = "off"


CalibrationOption = Annotated[
    Path | None,
    typer.Option("--calibration", help="A folder of photos that ranges come from.", show_default="synthetic portraits"),
]
CalibrationImagesOption = Annotated[
    int, typer.Option("--calibration-images", help="How many of them; a quarter judges what stays in float.")
]
EstimatorOption = Annotated[
    Estimator | None,
    typer.Option("--estimator", help="How a range follows from values.", show_default="the best one here"),
]
EqualizeOption = Annotated[
    Switch | None,
    typer.Option("--equalize", help="Bring channels to like ranges first.", show_default="where it helps"),
]
CorrectBiasesOption = Annotated[
    Switch, typer.Option("--correct-biases", help="Let biases take up the mean error of 8-bit weights.")
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop",
        metavar="POINTS",
        help="Points of mIoU against the float masks that integers may cost; layers stay in float until they do not.",
        show_default="0.5",
    ),
]
IntegerIoOption = Annotated[
    bool, typer.Option("--integer-io", help="The file takes and returns the integers themselves; TFLite only.")
]
HeldOutOption = Annotated[
    int,
    typer.Option(
        "--held-out", min=0, max=128, help="Evaluate a file with integers on so many held-out portraits; 0: not at all."
    ),
]


def with_quantization(
    options: ExportOptions,
    *,
    estimator: Estimator | None,
    equalize: Switch | None,
    correct_biases: Switch,
    max_drop: float | None,
    integer_io: bool,
) -> ExportOptions:
    """Return ``options`` with what the command line says of integers. Raises UsageError for what has no meaning."""
    from dataclasses import replace

    from deploykit.errors import UsageError
    from deploykit.lowering import needs_calibration

    if max_drop is not None and not 0 <= max_drop <= 100:
        raise UsageError("The limit is out of range.", where="--max-drop", found=str(max_drop), expected="0 to 100")
    given = {
        "--estimator": estimator is not None,
        "--equalize": equalize is not None,
        "--max-drop": max_drop is not None,
        "--integer-io": integer_io,
    }
    if options.precision.is_float and any(given.values()):
        raise UsageError(
            "The file has no integers to choose.",
            where=", ".join(name for name, is_given in given.items() if is_given),
            found=f"--precision {options.precision}",
            expected="a precision with integers, such as --precision int8",
        )
    weights_alone = {
        name
        for name in ("--estimator", "--equalize", "--integer-io")
        if given[name] and not options.precision.quantizes_activations
    }
    if options.precision is Precision.W8A16 and equalize is Switch.ON:
        weights_alone.add("--equalize")
    if not needs_calibration(options) and max_drop is not None:
        weights_alone.add("--max-drop")
    if not options.precision.is_float and weights_alone:
        raise UsageError(
            "The option has no effect on these integers.",
            where=", ".join(sorted(weights_alone)),
            found=f"--precision {options.precision}",
            expected="--precision int8, whose activations are integers of 8 bits",
            next_step="leave it out",
        )
    strengths = {None: None, Switch.ON: 1.0, Switch.OFF: 0.0}
    return replace(
        options,
        estimator=estimator,
        equalization=strengths[equalize],
        correct_biases=correct_biases is Switch.ON,
        max_drop=options.max_drop if max_drop is None else max_drop,
        integer_io=integer_io,
    )


def calibrated(
    recipe: Recipe,
    options: ExportOptions,
    folder: Path | None,
    images: int,
    say: Callable[[str], None],
) -> tuple[ExportOptions, CalibrationSet | None]:
    """Return ``options`` that name their calibration images, and these; nothing of both for a float file.

    Raises UsageError for images where nothing is calibrated.
    """
    from dataclasses import replace

    from deploykit.errors import UsageError
    from deploykit.lowering import needs_calibration
    from deploykit.quantize.calibration import calibration_set

    if not needs_calibration(options):
        if folder is not None:
            raise UsageError(
                "Nothing is calibrated.",
                where="--calibration",
                found=f"--precision {options.precision}",
                expected="a precision with integers, such as --precision int8",
            )
        return options, None
    say("reading the calibration images")
    found = calibration_set(recipe, folder, images)
    return replace(options, calibration=found.record.sha256), found
