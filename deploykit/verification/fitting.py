"""A wrong mean or scale measured from outside: fitted until the network gives what the file makes of the same image.

Ramps of colour tell most: every channel takes many values, ``(pixel - mean) * scale`` with the file's own mean and
scale, and few activations cut all of them off. What is fitted proves nothing by itself: the other probe images have
to come out as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels
from deploykit.recipe import Input
from deploykit.verification.hypotheses import FULL, Channels, Preprocessing, channels_of, geometry_of, measured

Values: TypeAlias = Mapping[str, NDArray[np.floating]]

# A step of a thousandth of the recipe's range is far above the rounding of float32, and small beside a mistake.
_STEP = 1e-3
# Derivatives cost six runs of the network, a step one: so many steps are taken from one set of them at most.
_ROUNDS, _STEPS = 8, 6
# A step that leaves more than this share of the squared difference asks for new derivatives; a round, for no other.
_SLOW, _STUCK = 0.5, 0.9
# A squared difference of this share of the squared outputs is the rounding of float32.
_CONVERGED = 1e-12
# What a step is damped by at first, as a share of each derivative's energy, and what it grows by after a bad step.
_DAMPING, _HARDER = 1e-6, 100.0
# What a network that overflows counts as.
_FAR = 1e6


def fitted(
    spec: Input,
    image: Pixels,
    found: Values,
    run: Callable[[Pixels, Preprocessing], Values],
    *,
    resizes: bool,
    swapped: bool,
) -> tuple[Preprocessing, ...]:
    """Return the preprocessings that come nearest to making ``run`` give what the file ``found`` for ``image``.

    With the recipe's scale and another mean, with the recipe's mean and another scale, and with both, in this order;
    all with ``swapped`` channels or none. None where the file's outputs are not finite.
    """
    wanted = _flat(found)
    if not np.isfinite(wanted).all():
        return ()
    mean, scale = channels_of(spec)
    ends = np.stack([-mean * scale, (FULL - mean) * scale])
    geometry = geometry_of(spec, resizes)
    unit = float(np.abs(ends[1] - ends[0]).max()) or 1.0

    def moved(by: Channels) -> Channels:
        return ends + by.reshape(2, 3) * unit

    def difference(by: Channels) -> Channels:
        low, high = moved(by)
        one = Preprocessing("fitted", geometry, swapped, lambda x: low + x * (high - low) / FULL)
        return np.nan_to_num(_flat(run(image, one)) - wanted, nan=_FAR, posinf=_FAR, neginf=-_FAR)

    best = _least_squares(difference, 6, _CONVERGED * float(wanted @ wanted))
    solved = _solved(moved(best), mean, scale)
    return tuple(measured(spec, *one, swapped=swapped, resizes=resizes) for one in solved)


def _least_squares(difference: Callable[[Channels], Channels], unknowns: int, enough: float) -> Channels:
    """Return where the sum of the squared ``difference`` is smallest, from zero on, or at most ``enough``.

    Levenberg's and Marquardt's method with finite differences, which Broyden's rule keeps up to date from step to
    step: a run of the network is what costs, and one that is linear between its corners needs few.
    """
    at = np.zeros(unknowns)
    values = difference(at)
    squares = float(values @ values)
    for _ in range(_ROUNDS):
        if squares <= enough:
            break
        slopes = np.stack([(difference(at + step) - values) / _STEP for step in _STEP * np.eye(unknowns)], axis=1)
        before, damping = squares, _DAMPING
        for _ in range(_STEPS):
            normal = slopes.T @ slopes
            normal += damping * (np.diag(np.diag(normal)) + np.finfo(float).tiny * np.eye(unknowns))
            step = np.linalg.lstsq(normal, -slopes.T @ values, rcond=None)[0]
            if not step.any():
                return at
            moved = difference(at + step)
            there = float(moved @ moved)
            slopes += np.outer(moved - values - slopes @ step, step / (step @ step))
            share = there / squares
            if share < 1:
                at, values, squares = at + step, moved, there
            else:
                damping *= _HARDER
            if squares <= enough or _SLOW < share < 1:
                break
        if squares > _STUCK * before:
            break
    return at


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


def _flat(values: Values) -> NDArray[np.float64]:
    return np.concatenate([np.ravel(values[name]).astype(np.float64) for name in sorted(values)])
