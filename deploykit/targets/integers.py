"""The numbers that integers stand for: weights by channel or palette, biases, activations.

Real value = scale · (q - zero point). The runtimes of ONNX and TFLite add up in 32-bit integers: biases are integers as
well, and scales are float32, none so small that a product of two vanishes. Core ML and Core AI make real numbers of the
integers first: their scales have the dtype of the float file, half precision too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import TargetError
from deploykit.targets.base import Array
from deploykit.targets.quantized import Range

# -128 is left out, so that the integers of weights are symmetric.
WEIGHT_LIMIT = 127
# A scale below this would lose its product with that of an activation to the subnormals of float32.
SMALLEST_WEIGHT_SCALE = 2.0**-60
# An activation that hardly leaves zero gets this: kernels refuse a product of scales far above that of their output.
SMALLEST_ACTIVATION_SCALE = 2.0**-30
# Half of int32 for a bias leaves the other half for the sum that it is added to.
BIAS_LIMIT = 2**30
_INT8 = np.iinfo(np.int8)
_LLOYD_STEPS = 100


@dataclass(frozen=True)
class ActivationIntegers:
    """How the integers of one activation are read: ``scale`` as its dtype holds it, the integer that is zero."""

    scale: float
    zero_point: int


@dataclass(frozen=True)
class WeightIntegers:
    """Weights as ``integers`` times one scale for each place along ``axis``; the integer 0 is the number 0."""

    integers: NDArray[np.int8]
    scales: Array
    axis: int

    def broadcast_scales(self) -> Array:
        """Return the scales in a shape that broadcasts with the integers."""
        return self.scales.reshape([-1 if axis == self.axis else 1 for axis in range(self.integers.ndim)])


@dataclass(frozen=True)
class Palette:
    """Weights as ``indices`` into ``table``, which rises and has 2 ** bits entries."""

    indices: NDArray[np.uint8]
    table: Array


def activation_integers(
    span: Range,
    lowest: int,
    highest: int,
    *,
    symmetric: bool = False,
    dtype: str = "float32",
    smallest: float = SMALLEST_ACTIVATION_SCALE,
) -> ActivationIntegers:
    """Return the integers ``lowest`` to ``highest`` spread over ``span``; zero is one of them exactly.

    ``symmetric`` puts the zero point at 0 and spreads ``highest`` over the larger side of ``span``. The scale is one of
    ``dtype``, ``smallest`` at least.
    """
    sided = max(-span.lowest, span.highest) / highest
    width = sided if symmetric else (span.highest - span.lowest) / (highest - lowest)
    scale = float(np.dtype(dtype).type(max(width, smallest)))
    zero_point = 0 if symmetric else round(lowest - span.lowest / scale)
    return ActivationIntegers(scale, min(max(zero_point, lowest), highest))


def int8_activations(
    path: Path, dtypes: Mapping[str, str], ranges: Mapping[str, Range]
) -> dict[str, ActivationIntegers]:
    """Return name → int8 integers of the activations ``dtypes`` (name → dtype of its scale) of the file ``path``.

    An activation that is always zero has the scale 1. Raises TargetError where one has no range, or no finite one.
    """
    require_ranges(path, dtypes, ranges)
    found = {}
    for name, dtype in dtypes.items():
        span = ranges[name]
        smallest = float(np.finfo(dtype).smallest_subnormal) if span.highest > span.lowest else 1.0
        found[name] = activation_integers(span, int(_INT8.min), int(_INT8.max), dtype=dtype, smallest=smallest)
    return found


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
    scales = _largest(weight, axis) / WEIGHT_LIMIT
    if bias is not None and input_scale is not None:
        scales = np.maximum(scales, np.abs(bias.astype(np.float64)) / (bias_limit * input_scale))
    found: NDArray[np.float32] = np.maximum(scales, SMALLEST_WEIGHT_SCALE).astype(np.float32)
    return found


def weight_integers(weight: Array, scales: Array, axis: int) -> NDArray[np.int8]:
    """Return ``weight`` as the nearest integers of ``scales`` (one a channel along ``axis``)."""
    sizes = [1] * weight.ndim
    sizes[axis] = len(scales)
    integers = np.round(weight.astype(np.float64) / scales.astype(np.float64).reshape(sizes))
    return np.clip(integers, -WEIGHT_LIMIT, WEIGHT_LIMIT).astype(np.int8)


def int8_weights(weight: Array, axis: int) -> WeightIntegers:
    """Return ``weight`` as integers of scales that are stored in its own dtype.

    A channel of zeros has the scale 1. The integers are the nearest under the scales as they are stored.
    """
    scales = (_largest(weight, axis) / WEIGHT_LIMIT).astype(weight.dtype)
    # A scale may underflow in half precision: what is that small is zero there.
    scales[scales == 0] = 1
    return WeightIntegers(weight_integers(weight, scales, axis), scales, axis)


def bias_integers(bias: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return ``bias`` as the nearest integers of ``scales``, the product of the scales of input and weight."""
    return np.round(bias.astype(np.float64) / scales.astype(np.float64)).astype(np.int64)


def palette(weights: Array, bits: int) -> Palette:
    """Return ``weights`` as indices into the 2 ** ``bits`` values that serve them best, the table in their dtype.

    The values are the means of the weights nearest to each (k-means on a line), found by Lloyd's steps from evenly
    filled groups: no chance is involved. Weights of fewer different values are told exactly.
    """
    values, places, counts = np.unique(weights.astype(np.float64), return_inverse=True, return_counts=True)
    size = 2**bits
    table = values if len(values) <= size else _means(values, counts, size)
    stored = np.concatenate([table, np.full(size - len(table), table[-1])]).astype(weights.dtype)
    nearest = _nearest(values, table)
    return Palette(nearest[places.reshape(-1)].reshape(weights.shape).astype(np.uint8), stored)


def _means(values: NDArray[np.float64], counts: NDArray[np.int64], size: int) -> NDArray[np.float64]:
    """Return ``size`` rising numbers, each the mean of the ``values`` (rising, ``counts`` of each) nearest to it."""
    weight = np.concatenate([[0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(counts * values)])
    # Half of the groups hold equally many weights, half are equally wide: neither the middle nor the tails starve.
    filled = np.interp((np.arange(size) + 0.5) / size * weight[-1], weight[1:], values)
    wide = np.linspace(values[0], values[-1], size)
    centres = np.sort((filled + wide) / 2)
    for _ in range(_LLOYD_STEPS):
        edges = np.concatenate([[0], np.searchsorted(values, (centres[1:] + centres[:-1]) / 2), [len(values)]])
        held = np.diff(weight[edges])
        moved = np.where(held > 0, np.diff(total[edges]) / np.maximum(held, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _nearest(values: NDArray[np.float64], table: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for each of ``values`` the position of the number of ``table``, which rises, that is nearest to it."""
    return np.searchsorted((table[1:] + table[:-1]) / 2, values)


def packed(indices: Array, bits: int) -> NDArray[np.uint8]:
    """Return the lowest ``bits`` of every index, in order and without gaps, from the lowest bit of each byte up."""
    singles = np.unpackbits(indices.astype(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(singles.reshape(-1), bitorder="little")


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


def _largest(weight: Array, axis: int) -> NDArray[np.float64]:
    """Return the largest magnitude of each channel of ``weight`` along ``axis``."""
    others = tuple(place for place in range(weight.ndim) if place != axis)
    found: NDArray[np.float64] = np.abs(weight.astype(np.float64)).max(axis=others)
    return found
