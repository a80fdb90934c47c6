"""Which precision each target can be given, as data: an impossible cell has its reason and the nearest possible one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import TargetError
from deploykit.targets.table import TARGETS
from deploykit.vocab import Precision, Target


@dataclass(frozen=True)
class Scheme:
    """What a precision means in the files of one target; ``minimum_os`` is the oldest system that takes it.

    ``integer_io`` says whether a file may take and return the integers themselves.
    """

    meaning: str
    minimum_os: str | None = None
    integer_io: bool = False


@dataclass(frozen=True)
class Impossible:
    """Why a target has no files of a precision, and the precision that comes nearest."""

    reason: str
    nearest: Precision


_FLOAT = Scheme("float32 weights and arithmetic")
_HALF = Scheme("float16 weights and arithmetic, float32 inputs and outputs")
_SIXTEEN = "16-bit integers as activations"

SCHEMES: dict[Target, dict[Precision, Scheme | Impossible]] = {
    Target.ONNX: {
        Precision.FP32: _FLOAT,
        Precision.FP16: _HALF,
        Precision.INT8: Scheme("QuantizeLinear and DequantizeLinear around layers: uint8 activations, int8 weights"),
        Precision.W8A16: Impossible(f"ONNX Runtime's CPU kernels take no {_SIXTEEN}", Precision.INT8),
        Precision.INT8_WEIGHTS: Scheme("int8 weights behind DequantizeLinear, float32 arithmetic"),
        Precision.PALETTE6: Impossible("ONNX has no operator for palettes", Precision.INT8_WEIGHTS),
        Precision.PALETTE4: Impossible("ONNX has no operator for palettes", Precision.INT8_WEIGHTS),
    },
    Target.COREML: {
        Precision.FP32: _FLOAT,
        Precision.FP16: _HALF,
        Precision.INT8: Scheme("quantize and dequantize around layers, int8 weights", "iOS17"),
        Precision.W8A16: Impossible(f"Core ML has no {_SIXTEEN}", Precision.INT8_WEIGHTS),
        Precision.INT8_WEIGHTS: Scheme("int8 weights, arithmetic of the float program", "iOS16"),
        Precision.PALETTE6: Scheme("6-bit palettes of weights", "iOS16"),
        Precision.PALETTE4: Scheme("4-bit palettes of weights", "iOS16"),
    },
    Target.TFLITE: {
        Precision.FP32: _FLOAT,
        Precision.FP16: Scheme("float16 weights; delegates compute in what they have, the CPU in float32"),
        Precision.INT8: Scheme("full integer, floats or integers in and out", integer_io=True),
        Precision.W8A16: Scheme("full integer, int16 activations, floats or integers in and out", integer_io=True),
        Precision.INT8_WEIGHTS: Scheme("int8 weights, float32 arithmetic"),
        Precision.PALETTE6: Impossible("TFLite has no palettes", Precision.INT8_WEIGHTS),
        Precision.PALETTE4: Impossible("TFLite has no palettes", Precision.INT8_WEIGHTS),
    },
    Target.COREAI: {
        Precision.FP32: _FLOAT,
        Precision.FP16: _HALF,
        Precision.INT8: Scheme("quantize and dequantize around layers, int8 weights"),
        Precision.W8A16: Impossible(f"deploykit writes no {_SIXTEEN} into Core AI files", Precision.INT8_WEIGHTS),
        Precision.INT8_WEIGHTS: Scheme("int8 weights, float arithmetic"),
        Precision.PALETTE6: Scheme("6-bit palettes of weights"),
        Precision.PALETTE4: Scheme("4-bit palettes of weights"),
    },
}


def scheme(target: Target, precision: Precision) -> Scheme | Impossible:
    """Return what ``precision`` means in files of ``target``, or why it has none."""
    return SCHEMES[target][precision]


def precisions_of(target: Target) -> tuple[Precision, ...]:
    """Return the precisions that files of ``target`` can have."""
    return tuple(one for one in Precision if isinstance(scheme(target, one), Scheme))


def default_minimum_os(target: Target, precision: Precision) -> str | None:
    """Return the oldest system that takes files of ``precision``; None where the target has no such thing."""
    known = scheme(target, precision)
    own = known.minimum_os if isinstance(known, Scheme) else None
    return own or TARGETS[target].default_minimum_os


def check_schemes(targets: Sequence[Target], precision: Precision) -> None:
    """Raise TargetError where files of any of ``targets`` cannot have ``precision``, with the reason of each."""
    cells = {target: scheme(target, precision) for target in targets}
    impossible = {target: cell for target, cell in cells.items() if isinstance(cell, Impossible)}
    if len(targets) == 1:
        check_scheme(targets[0], precision, None)
    elif impossible:
        able = [str(target) for target in Target if precision in precisions_of(target)]
        nearest = dict.fromkeys(str(cell.nearest) for cell in impossible.values())
        raise TargetError(
            f"Not all of these targets have {precision} files.",
            where="--precision",
            found="; ".join(f"{target}: {cell.reason}" for target, cell in impossible.items()),
            expected=f"--target {','.join(able)}",
            next_step=f"the nearest for the others: --precision {' or '.join(nearest)}",
        )


def check_scheme(target: Target, precision: Precision, minimum_os: str | None, *, integer_io: bool = False) -> None:
    """Raise TargetError where files of ``target`` cannot have ``precision``, or not for systems as old as asked.

    Or not ``integer_io``, where that is asked for.
    """
    known = scheme(target, precision)
    if isinstance(known, Impossible):
        raise TargetError(
            f"The target {target} has no {precision} files.",
            where="--precision",
            found=f"{precision}: {known.reason}",
            expected=", ".join(precisions_of(target)),
            next_step=f"the nearest: --precision {known.nearest}",
        )
    if integer_io and not known.integer_io:
        every = [(one, name, cell) for one, row in SCHEMES.items() for name, cell in row.items()]
        able = [f"{one} {name}" for one, name, cell in every if isinstance(cell, Scheme) and cell.integer_io]
        raise TargetError(
            f"A {precision} file of {target} takes and returns floats.",
            where="--integer-io",
            found=f"{target} {precision}",
            expected=", ".join(able),
            next_step="leave --integer-io out",
        )
    systems = TARGETS[target].minimum_os
    if known.minimum_os and minimum_os in systems and systems.index(minimum_os) < systems.index(known.minimum_os):
        raise TargetError(
            f"{precision} files need a newer system.",
            where="--minimum-os",
            found=str(minimum_os),
            expected=f"{known.minimum_os} or newer",
            next_step=f"--minimum-os {known.minimum_os}, or another precision",
        )


def require_integers(target: Target, precision: Precision, path: Path) -> None:
    """Raise TargetError where the float file ``path`` of ``target`` cannot be given the integers of ``precision``."""
    known = scheme(target, precision)
    able = [one for one in precisions_of(target) if not one.is_float]
    if precision in able:
        return
    nearest = known.nearest if isinstance(known, Impossible) else able[0]
    raise TargetError(
        f"Files of {target} are not quantized to {precision}.",
        where=str(path),
        found=f"{precision}: {known.reason if isinstance(known, Impossible) else known.meaning}",
        expected=" or ".join(able),
        next_step=f"the nearest: --precision {nearest}",
    )
