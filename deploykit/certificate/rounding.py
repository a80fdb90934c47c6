"""Worst-case rounding of one layer over a box of inputs.

A sum of n terms, each a product of a weight and an input or the bias, in floating point with unit roundoff u, is off
by at most ``gamma_n * sum of |terms|`` with ``gamma_n = n*u / (1 - n*u)``: a product is rounded once and then carried
through at most n - 1 additions, whatever their order; fused multiply-add rounds less often. Source: Higham, Accuracy
and Stability of Numerical Algorithms, section 3.1. It counts the products that the convolution is defined by: Winograd
and FFT convolutions compute others, and may be further off.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.certificate.box import rounded_up
from deploykit.certificate.layer import TRANSPOSED, Layer
from deploykit.certificate.records import Rounding

Array = NDArray[np.float64]

# The bounds themselves are computed in float64, in some order of summation.
_OWN_ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Precision:
    """A floating-point format: its NumPy type, unit roundoff, least normal and largest number."""

    name: str
    dtype: type[np.floating]
    unit_roundoff: float
    least: float
    largest: float

    def round(self, values: Array) -> Array:
        """Return ``values`` rounded to this format, through float32 as deploykit rounds; infinite where too large."""
        with np.errstate(over="ignore"):
            return values.astype(np.float32).astype(self.dtype).astype(np.float64)


FLOAT32 = Precision("float32", np.float32, 2.0**-24, 2.0**-126, float(np.finfo(np.float32).max))
FLOAT16 = Precision("float16", np.float16, 2.0**-11, 2.0**-14, float(np.finfo(np.float16).max))


def bound(
    layer: Layer,
    exact: tuple[Array, Array],
    shipped: tuple[Array, Array],
    magnitude: Array,
    precision: Precision,
) -> Rounding:
    """Return how far ``layer`` with the ``shipped`` weight and bias is from the ``exact`` ones, at most.

    ``magnitude`` (in,) bounds the absolute value of each input channel. The weights are float64; ``shipped`` ones
    are rounded to ``precision`` here.
    """
    weight, bias = (precision.round(values) for values in shipped)
    finite = bool(np.isfinite(weight).all() and np.isfinite(bias).all())
    if not finite:
        return Rounding(precision.name, precision.unit_roundoff, 0, None, (), None, math.inf, math.inf, True)
    with_bias = layer.bias is not None
    sums = absolute_sums(layer, np.abs(weight), magnitude)
    moved = absolute_sums(layer, np.abs(weight - exact[0]), magnitude)
    counts = absolute_sums(layer, np.ones_like(weight), np.ones_like(magnitude))
    # An operand or a result below the least normal number may be flushed to zero.
    flushed = absolute_sums(layer, np.ones_like(weight), magnitude) + absolute_sums(
        layer, np.abs(weight), np.ones_like(magnitude)
    )
    roundings = int(counts.max()) + with_bias
    largest = float((sums + np.abs(bias)).max()) * _OWN_ROUNDING
    moved_most = float((moved + np.abs(bias - exact[1])).max()) * _OWN_ROUNDING
    product = roundings * precision.unit_roundoff
    if product >= 1:
        return Rounding(
            precision.name,
            precision.unit_roundoff,
            roundings,
            None,
            (),
            None,
            rounded_up(moved_most),
            rounded_up(largest),
            largest >= precision.largest,
        )
    gammas = (counts + with_bias) * precision.unit_roundoff
    gammas = gammas / (1 - gammas)
    underflow = precision.least * (2 * counts + 1 + flushed)
    totals = gammas * (sums + np.abs(bias)) + moved + np.abs(bias - exact[1]) + underflow
    bounds = totals.max(axis=0) * _OWN_ROUNDING
    gamma = product / (1 - product)
    return Rounding(
        precision=precision.name,
        unit_roundoff=precision.unit_roundoff,
        roundings=roundings,
        gamma=gamma,
        bounds=tuple(rounded_up(float(value)) for value in bounds) if precision is FLOAT32 else (),
        worst_bound=rounded_up(float(bounds.max())),
        weight_rounding=rounded_up(moved_most),
        largest_sum=rounded_up(largest),
        overflows=largest * (1 + gamma) >= precision.largest,
    )


def absolute_sums(layer: Layer, weight: Array, magnitude: Array) -> Array:
    """Return the largest sum of ``weight * magnitude`` of one output, (kinds of places, out); both are not negative.

    A transposed convolution reads another part of its kernel at each place of the stride: one row for each. Nothing
    is gained by telling places at the border apart, where some products are zero.
    """
    if layer.kind != TRANSPOSED:
        per_input = weight.reshape(*weight.shape[:2], -1).sum(2)
        rows = np.repeat(magnitude.reshape(layer.groups, -1), len(weight) // layer.groups, axis=0)
        everywhere: Array = (per_input * rows).sum(1)[None]
        return everywhere
    kernel = weight.shape[2:]
    found = []
    for phase in itertools.product(*(range(step) for step in layer.stride)):
        reads = [
            [index for index in range(size) if (index * spread) % step == place]
            for size, spread, step, place in zip(kernel, layer.dilation, layer.stride, phase, strict=True)
        ]
        part = weight[np.ix_(range(len(weight)), range(weight.shape[1]), *reads)]
        per_input = part.reshape(*weight.shape[:2], -1).sum(2) * magnitude[:, None]
        found.append(per_input.reshape(layer.groups, -1, weight.shape[1]).sum(1).ravel())
    return np.stack(found)
