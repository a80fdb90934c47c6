"""The numbers that integers stand for: weights by channel, biases, activations. Real value = scale · (q - zero point).

For formats whose runtime adds up in 32-bit integers, ONNX and TFLite: biases are integers as well, scales float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import TargetError
from deploykit.targets.quantized import Range

# -128 is left out, so that the integers of weights are symmetric.
WEIGHT_LIMIT = 127
# A scale below this would lose its product with that of an activation to the subnormals of float32.
SMALLEST_WEIGHT_SCALE = 2.0**-60
# An activation that hardly leaves zero gets this: kernels refuse a product of scales far above that of their output.
SMALLEST_ACTIVATION_SCALE = 2.0**-30
# Half of int32 for a bias leaves the other half for the sum that it is added to.
BIAS_LIMIT = 2**30


@dataclass(frozen=True)
class ActivationIntegers:
    """How the integers of one activation are read: float32 ``scale``, and the integer that stands for zero."""

    scale: float
    zero_point: int


def activation_integers(span: Range, lowest: int, highest: int, *, symmetric: bool = False) -> ActivationIntegers:
    """Return the integers ``lowest`` to ``highest`` spread over ``span``; zero is one of them exactly.

    ``symmetric`` puts the zero point at 0 and spreads ``highest`` over the larger side of ``span``.
    """
    if symmetric:
        return ActivationIntegers(_scale(max(-span.lowest, span.highest) / highest), 0)
    scale = _scale((span.highest - span.lowest) / (highest - lowest))
    zero_point = round(lowest - span.lowest / scale)
    return ActivationIntegers(scale, min(max(zero_point, lowest), highest))


def weight_scales(
    weight: NDArray[np.float32],
    axis: int,
    bias: NDArray[np.float32] | None = None,
    input_scale: float | None = None,
    bias_limit: int = BIAS_LIMIT,
) -> NDArray[np.float32]:
    """Return the scale of each channel of ``weight`` along ``axis``, whose integers are -127 to 127.

    A channel of zeros has a scale too. Where an integer of ``bias`` (one a channel) would exceed ``bias_limit`` at
    ``input_scale`` times the scale, the scale is as large as it needs: those weights are small beside their bias.
    """
    others = tuple(place for place in range(weight.ndim) if place != axis)
    scales = np.abs(weight.astype(np.float64)).max(axis=others) / WEIGHT_LIMIT
    if bias is not None and input_scale is not None:
        scales = np.maximum(scales, np.abs(bias.astype(np.float64)) / (bias_limit * input_scale))
    found: NDArray[np.float32] = np.maximum(scales, SMALLEST_WEIGHT_SCALE).astype(np.float32)
    return found


def weight_integers(weight: NDArray[np.float32], scales: NDArray[np.float32], axis: int) -> NDArray[np.int8]:
    """Return ``weight`` as the nearest integers of ``scales`` (one a channel along ``axis``)."""
    sizes = [1] * weight.ndim
    sizes[axis] = len(scales)
    integers = np.round(weight.astype(np.float64) / scales.astype(np.float64).reshape(sizes))
    return np.clip(integers, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def bias_integers(bias: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return ``bias`` as the nearest integers of ``scales``, the product of the scales of input and weight."""
    return np.round(bias.astype(np.float64) / scales.astype(np.float64)).astype(np.int64)


def require_finite_weight(path: Path, name: str, weight: NDArray[np.float32]) -> None:
    """Raise TargetError where a weight is NaN or infinite: no scale spans it."""
    if not np.isfinite(weight).all():
        raise TargetError(
            "A weight is not a finite number, so that no integers stand for its tensor.",
            where=f"{path.name}: {name}",
            found=f"{int((~np.isfinite(weight)).sum())} of {weight.size} values NaN or infinite",
            expected="finite weights",
            next_step="check the checkpoint with `deploykit inspect`",
        )


def require_ranges(path: Path, needed: Iterable[str], ranges: Mapping[str, Range]) -> None:
    """Raise TargetError unless ``ranges`` has a finite range for each activation in ``needed``."""
    wanted = list(dict.fromkeys(needed))
    missing = [name for name in wanted if name not in ranges]
    if missing:
        raise TargetError(
            "Activations that are to be integers have no range.",
            where=str(path),
            found=f"{len(missing)} of {len(wanted)} without: {', '.join(missing[:5])}",
            expected="a range for every activation that an integer operation reads or computes",
            next_step="calibrate this very file: names change with every export",
        )
    # A range with NaN fails no comparison but its own: it is asked for by name.
    wrong = [name for name in wanted if not all(math.isfinite(x) for x in (ranges[name].lowest, ranges[name].highest))]
    if wrong:
        raise TargetError(
            "Activations that are to be integers have a range that is not finite.",
            where=str(path),
            found=", ".join(f"{name}: {ranges[name].lowest} to {ranges[name].highest}" for name in wrong[:5]),
            expected="finite ranges",
            next_step="look for the operation that overflows with `deploykit verify --layers`",
        )


def require_known(path: Path, option: str, names: Iterable[str], known: Iterable[str]) -> None:
    """Raise TargetError where ``names``, those of ``option``, are not among the values that ``known`` names."""
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise TargetError(
            "An operation to be left in float is not in the file.",
            where=str(path),
            found=f"{option}: {', '.join(unknown[:5])}",
            expected="names of values that operations of the file compute",
        )


def _scale(value: float) -> float:
    return float(np.float32(max(value, SMALLEST_ACTIVATION_SCALE)))
