"""Codes and palettes as Core ML and Core AI store them: scales in the dtype of the float file, half precision too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import TargetError
from deploykit.targets.base import Array
from deploykit.targets.quantized import Range

INT8_LARGEST = 127
KEPT = "kept in float by request"
NO_GAIN = "its integers and scales would take no fewer bytes than its weights"
SHARED = "its weights are also read where they must stay in float"
_LEVELS = 255
_FLOATS: dict[str, type[np.float32] | type[np.float16]] = {"float32": np.float32, "float16": np.float16}
_LLOYD_STEPS = 100


@dataclass(frozen=True)
class Int8Weights:
    """Weights as ``codes`` times one scale for each place along ``axis``; the code 0 is the number 0."""

    codes: NDArray[np.int8]
    scales: Array
    axis: int

    def broadcast_scales(self) -> Array:
        """Return the scales in a shape that broadcasts with the codes."""
        return self.scales.reshape([-1 if axis == self.axis else 1 for axis in range(self.codes.ndim)])


@dataclass(frozen=True)
class Palette:
    """Weights as ``codes`` that point into ``table``, which rises and has 2 ** bits entries."""

    codes: NDArray[np.uint8]
    table: Array


@dataclass(frozen=True)
class ActivationScale:
    """An activation is ``scale`` times (its int8 code minus ``zero_point``)."""

    scale: np.float32 | np.float16
    zero_point: int


def int8_weights(weights: Array, axis: int) -> Int8Weights:
    """Return ``weights`` as symmetric int8 codes of their own scale along ``axis``, the scales in their dtype.

    A channel of zeros has the scale 1. The codes are those nearest to the weights under the scales as they are stored.
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    largest = np.abs(weights.astype(np.float64)).max(axis=others)
    scales = (largest / INT8_LARGEST).astype(weights.dtype)
    # A scale may underflow in half precision: what is that small is zero there.
    scales[scales == 0] = 1
    stored = Int8Weights(np.zeros(weights.shape, np.int8), scales, axis)
    steps = np.rint(weights.astype(np.float64) / stored.broadcast_scales().astype(np.float64))
    return Int8Weights(np.clip(steps, -INT8_LARGEST, INT8_LARGEST).astype(np.int8), scales, axis)


def palette(weights: Array, bits: int) -> Palette:
    """Return ``weights`` as pointers into the 2 ** ``bits`` values that serve them best, the table in their dtype.

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


def packed(codes: Array, bits: int) -> NDArray[np.uint8]:
    """Return the lowest ``bits`` of every code, in order and without gaps, from the lowest bit of each byte up."""
    singles = np.unpackbits(codes.astype(np.uint8).reshape(-1, 1), axis=1, bitorder="little")[:, :bits]
    return np.packbits(singles.reshape(-1), bitorder="little")


def activation_scales(path: Path, dtypes: Mapping[str, str], ranges: Mapping[str, Range]) -> dict[str, ActivationScale]:
    """Return name → int8 scale and zero point of the activations in ``dtypes`` (name → dtype), of the file ``path``.

    Raises TargetError where one of them has no range, or no finite one.
    """
    missing = [name for name in dtypes if name not in ranges]
    if missing:
        raise TargetError(
            "Activations that become integers have no range.",
            where=str(path),
            found=", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else ""),
            expected="a range of every activation that an operation in integers reads",
        )
    endless = [name for name in dtypes if not math.isfinite(ranges[name].highest - ranges[name].lowest)]
    if endless:
        first = ranges[endless[0]]
        raise TargetError(
            "Activations that become integers have no finite range.",
            where=str(path),
            found=f"{endless[0]}: {first.lowest} to {first.highest}",
            expected="finite numbers",
            next_step="calibrate with images on which the network stays finite",
        )
    return {name: activation_scale(ranges[name], dtype) for name, dtype in dtypes.items()}


def activation_scale(spanned: Range, dtype: str) -> ActivationScale:
    """Return the int8 scale, as ``dtype`` stores it, and the zero point, whose 256 codes span the finite range."""
    width = (spanned.highest - spanned.lowest) / _LEVELS
    smallest = float(np.finfo(_FLOATS[dtype]).smallest_subnormal)
    scale = _FLOATS[dtype](max(width, smallest) if width else 1.0)
    zero_point = round(-(INT8_LARGEST + 1) - spanned.lowest / float(scale))
    return ActivationScale(scale, max(-(INT8_LARGEST + 1), min(INT8_LARGEST, zero_point)))
