"""A wrong mean or scale measured from outside: fitted until the network gives what the file makes of the same images.

A plain colour reaches the network as one value a channel, ``(pixel - mean) * scale`` with the file's own mean and
scale. Of a network whose activations cut off most of what plain colours make, ramps of colour tell more. What is
fitted proves nothing by itself: the other probe images have to come out as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels
from deploykit.recipe import Input
from deploykit.verification.hypotheses import FULL, Channels, Preprocessing, channels_of, geometry_of, measured

Values: TypeAlias = Mapping[str, NDArray[np.floating]]

# A step of a thousandth of the recipe's range is far above the rounding of float32, and small beside a mistake.
_STEP = 1e-3
# Each iteration runs the network seven times on every image.
_ITERATIONS, _CONVERGED = 20, 1e-6
# What a network that overflows counts as.
_FAR = 1e6


def fitted(
    spec: Input,
    images: Sequence[Pixels],
    found: Sequence[Values],
    run: Callable[[Pixels, Preprocessing], Values],
    *,
    resizes: bool,
    swapped: bool,
) -> tuple[Preprocessing, ...]:
    """Return the preprocessings that come nearest to making ``run`` give what the file ``found`` for ``images``.

    With the recipe's scale and another mean, with the recipe's mean and another scale, and with both, in this order;
    all with ``swapped`` channels or none. None where the file's outputs are not finite.
    """
    from scipy.optimize import least_squares

    wanted = _flat(found)
    if not np.isfinite(wanted).all():
        return ()
    mean, scale = channels_of(spec)
    ends = np.stack([-mean * scale, (FULL - mean) * scale])
    geometry = geometry_of(spec, resizes)
    unit = float(np.abs(ends[1] - ends[0]).max()) or 1.0

    def moved(by: Channels) -> Channels:
        # Around 1, so that relative steps are steps of the recipe's range for a value of zero as well.
        return ends + (by.reshape(2, 3) - 1) * unit

    def difference(by: Channels) -> Channels:
        low, high = moved(by)
        one = Preprocessing("fitted", geometry, swapped, lambda x: low + x * (high - low) / FULL)
        values = _flat([run(image, one) for image in images])
        return np.nan_to_num(values - wanted, nan=_FAR, posinf=_FAR, neginf=-_FAR)

    best = least_squares(difference, np.ones(6), diff_step=_STEP, xtol=_CONVERGED, max_nfev=_ITERATIONS)
    solved = _solved(moved(best.x), mean, scale)
    return tuple(measured(spec, *one, swapped=swapped, resizes=resizes) for one in solved)


def _solved(ends: Channels, mean: Channels, scale: Channels) -> list[tuple[Channels | None, Channels | None]]:
    """Return another mean, another scale, and both, that turn black and white into ``ends`` (2, channel)."""
    pixels = np.array([[0.0], [FULL]])
    away = pixels - mean
    slope = (ends[1] - ends[0]) / FULL
    with np.errstate(all="ignore"):
        made = (
            ((pixels - ends / scale).mean(0), None),
            (None, (ends * away).sum(0) / np.square(away).sum(0)),
            (-ends[0] / slope, slope),
        )
    return [one for one in made if all(part is None or np.isfinite(part).all() for part in one)]


def _flat(outputs: Sequence[Values]) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(values[name]).astype(np.float64) for values in outputs for name in sorted(values)])
