"""Whether rounding explains a difference: the one criterion by which values are matched and modules accused.

A value v of the file is compared with what the lowered graph computes from the file's own inputs of that operation:
exactly, p, and rounded as the file rounds, r. Rounding in another order or at other places moves a value about as far
as r lies from p. So, channel by channel, ``min(|v - p|, |v - r|)`` has to stay below ``SPREAD * |r - p|`` (of the
channel, plus that of the average channel, since one channel of few values may round luckily) plus some units in the
last place of the values themselves: as many as approximations of exp or of resizing coordinates in kernels need, and
those of adding n terms one after the other: the square root of n for products, whose roundings go either way, and n for
the plain sum of a map, which may be flat, so that each rounding goes the same way. In half precision a
runtime may read more bits of an input than it shows: inputs moved by half a unit in their last place tell what that
can do, which is much where an operation cancels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

SPREAD = 4.0
UNIT_SINGLE, UNITS_SINGLE = 2.0**-24, 16.0
# Kernels of half precision compute in single precision and round each value once.
UNIT_HALF, UNITS_HALF = 2.0**-11, 2.0


@dataclass(frozen=True)
class Judgement:
    """``error`` and ``explained`` are relative L2 of the whole value; ``ratio`` is that of the worst channel to its
    bound, above 1 where rounding does not explain the error."""

    error: float
    explained: float
    ratio: float

    @property
    def clean(self) -> bool:
        """Whether rounding explains the error."""
        return self.ratio <= 1


def judge(
    value: Tensor,
    exact: Tensor,
    rounded: Tensor,
    *,
    half: bool,
    shaken: Tensor | None = None,
    adding: float = 0.0,
) -> Judgement:
    """Return the judgement on ``value`` (float64), which is ``exact`` without and ``rounded`` with rounding.

    ``shaken`` is what the operation computes from inputs moved within their last place, where they may have been.

    ``half`` says that the file holds it in half precision, ``adding`` how many units in the last place of float32
    the order of a sum may cost. A value that is not finite where the exact one is has an infinite error, which
    rounding explains where it overflows at the same places; where neither is finite, nothing is compared.
    """
    finite = torch.isfinite(value)
    lost = torch.isfinite(exact) & ~finite
    if bool(lost.any()):
        overflows = not bool(torch.isfinite(rounded[lost]).any())
        return Judgement(math.inf, math.inf if overflows else 0.0, math.inf)
    if not bool(finite.all()) or not bool(torch.isfinite(exact).all()):
        # What was not finite before cannot be told apart; the rest can.
        kept = finite & torch.isfinite(exact)
        value, exact, rounded = (torch.where(kept, item, 0.0) for item in (value, exact, rounded))
        shaken = None if shaken is None else torch.where(kept, shaken, 0.0)
    size = _norms(exact)
    spread = _spread(rounded, exact)
    if shaken is not None and shaken is not rounded:
        spread = torch.maximum(spread, _spread(shaken, exact))
    difference = _norms(value - exact)
    error = torch.minimum(difference, torch.nan_to_num(_norms(value - rounded.double()), nan=math.inf))
    floor = max(UNITS_HALF * UNIT_HALF if half else UNITS_SINGLE * UNIT_SINGLE, adding * UNIT_SINGLE)
    bound = SPREAD * (spread + _mean(spread)) + floor * (size + _mean(size))
    whole = _whole(size)
    ratio = float(torch.where(error > 0, error / bound, 0.0).max()) if error.numel() else 0.0
    return Judgement(_relative(_whole(difference), whole), _relative(_whole(spread), whole), ratio)


def relative_l2(value: Tensor, reference: Tensor, scale: Tensor | None = None) -> float:
    """Return ``|value - reference| / |scale|``, the reference being the scale where none is given."""
    error = float(torch.linalg.vector_norm(value.double() - reference.double()))
    size = float(torch.linalg.vector_norm((reference if scale is None else scale).double()))
    return _relative(error, size) if math.isfinite(error) else math.inf


def _norms(value: Tensor) -> Tensor:
    """Return the L2 norm of every channel (axis 1), or the magnitude of each value where there is no other axis."""
    if value.dim() < 2:
        return value.abs().reshape(-1)
    norms: Tensor = torch.linalg.vector_norm(value.transpose(0, 1).flatten(1), dim=1)
    return norms


def _spread(rounded: Tensor, exact: Tensor) -> Tensor:
    """Return how far rounding moves each channel; an overflow explains nothing of what did not overflow."""
    return torch.nan_to_num(_norms(rounded.double() - exact), nan=0.0, posinf=0.0)


def _mean(norms: Tensor) -> float:
    return math.sqrt(float(norms.square().mean())) if norms.numel() else 0.0


def _whole(norms: Tensor) -> float:
    return float(torch.linalg.vector_norm(norms))


def _relative(error: float, size: float) -> float:
    return 0.0 if error == 0 else (error / size if size > 0 else math.inf)
