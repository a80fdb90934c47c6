"""Range estimators: from the values that an activation took on calibration images to the range of its integers.

Values are seen twice: once for the smallest and largest value of each image, once for a histogram between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.targets.base import Array
from deploykit.targets.quantized import Range
from deploykit.vocab import Estimator

BINS = 2048
LEVELS = 256
# The weight of the newest image in a moving average, as TensorFlow's and PyTorch's observers have it by default.
NEWEST = 0.01
OUTSIDE = 1e-4
_MOST_KEPT_BYTES = 2**29
# Clipped ends to try: shares of the whole way from zero, one end after the other.
_SHARES = np.linspace(1.0, 0.05, 58)


@dataclass(frozen=True)
class Seen:
    """What one activation was on calibration images: ``lowest`` and ``highest`` (images,), ``counts`` (BINS,).

    The bins divide the range from the smallest of all values to the largest; ``counts`` is None before they are seen.
    """

    lowest: NDArray[np.float64]
    highest: NDArray[np.float64]
    counts: NDArray[np.float64] | None = None

    @property
    def whole(self) -> Range:
        """The range of all values, and of zero."""
        return Range(min(0.0, float(self.lowest.min())), max(0.0, float(self.highest.max())))

    def centers(self) -> NDArray[np.float64]:
        """Return the middle of each bin."""
        edges = np.linspace(float(self.lowest.min()), float(self.highest.max()), BINS + 1)
        return np.asarray((edges[:-1] + edges[1:]) / 2)


def see(runs: Callable[[], Iterator[Mapping[str, Array]]]) -> dict[str, Seen]:
    """Return what each activation was; ``runs`` yields the activations of every image, alike each time.

    They are computed twice only where all of them together are too many to be kept.
    """
    ends: dict[str, list[tuple[float, float]]] = {}
    kept: list[Mapping[str, Array]] | None = []
    left = _MOST_KEPT_BYTES
    for values in runs():
        left -= sum(value.nbytes for value in values.values())
        if left < 0:
            kept = None
        if kept is not None:
            kept.append(values)
        for name, value in values.items():
            ends.setdefault(name, []).append((float(value.min()), float(value.max())) if value.size else (0.0, 0.0))
    found = {name: Seen(*np.asarray(each, dtype=np.float64).T) for name, each in ends.items()}
    counts = {name: np.zeros(BINS) for name, one in found.items() if np.isfinite((one.lowest, one.highest)).all()}
    for values in runs() if kept is None else kept:
        for name, value in values.items():
            if name in counts:
                counts[name] += _counted(value, float(found[name].lowest.min()), float(found[name].highest.max()))
    return {name: Seen(one.lowest, one.highest, counts.get(name)) for name, one in found.items()}


def _counted(value: Array, lowest: float, highest: float) -> NDArray[np.int64]:
    """Return how many of ``value`` lie in each bin from ``lowest`` to ``highest``, which may hardly differ."""
    if highest <= lowest:
        return np.bincount([0], [value.size], BINS).astype(np.int64)
    places = (np.asarray(value, dtype=np.float64).ravel() - lowest) / (highest - lowest) * BINS
    return np.bincount(np.clip(places.astype(np.int64), 0, BINS - 1), minlength=BINS)


def estimate(seen: Seen, estimator: Estimator) -> Range:
    """Return the range of the integers of an activation. Raises ValueError for one that was not finite."""
    if not (np.isfinite(seen.lowest).all() and np.isfinite(seen.highest).all()):
        raise ValueError("the activation is not finite")
    whole = seen.whole
    if estimator is Estimator.MIN_MAX or whole.highest == whole.lowest or seen.counts is None:
        return whole
    if estimator is Estimator.MOVING_AVERAGE:
        low, high = _moving_average(seen.lowest), _moving_average(seen.highest)
        return Range(min(0.0, low), max(0.0, high))
    centers, counts = seen.centers(), seen.counts
    if estimator is Estimator.PERCENTILE:
        share = counts.cumsum() / counts.sum()
        first, last = int(np.searchsorted(share, OUTSIDE)), int(np.searchsorted(share, 1 - OUTSIDE))
        return Range(min(0.0, float(centers[first])), max(0.0, float(centers[min(last, BINS - 1)])))
    cost = _divergence if estimator is Estimator.ENTROPY else _squared_error
    highest = min(
        (Range(whole.lowest, whole.highest * float(share)) for share in _SHARES),
        key=lambda one: cost(one, centers, counts),
    ).highest
    return min(
        (Range(whole.lowest * float(share), highest) for share in _SHARES), key=lambda one: cost(one, centers, counts)
    )


def _moving_average(values: NDArray[np.float64]) -> float:
    """Return the exponential moving average of ``values`` in their order, begun with the mean."""
    average = float(values.mean())
    for value in values:
        average += NEWEST * (float(value) - average)
    return average


def _quantized(values: NDArray[np.float64], given: Range) -> NDArray[np.float64]:
    """Return the number of the level that each of ``values`` falls on."""
    scale = max(given.highest - given.lowest, 1e-300) / (LEVELS - 1)
    zero = np.rint(-given.lowest / scale)
    return np.asarray(np.clip(np.rint(values / scale) + zero, 0, LEVELS - 1))


def _squared_error(given: Range, centers: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    scale = (given.highest - given.lowest) / (LEVELS - 1)
    zero = np.rint(-given.lowest / scale)
    real = (_quantized(centers, given) - zero) * scale
    return float((counts * (real - centers) ** 2).sum())


def _divergence(given: Range, centers: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """Return the Kullback-Leibler divergence of what the integers keep of the distribution from the clipped one."""
    clipped = counts.copy()
    inside = (centers >= given.lowest) & (centers <= given.highest)
    first, last = int(np.argmax(inside)), BINS - 1 - int(np.argmax(inside[::-1]))
    clipped[first] += counts[:first].sum()
    clipped[last] += counts[last + 1 :].sum()
    clipped[~inside] = 0
    levels = _quantized(centers, given).astype(np.int64)
    held = inside & (counts > 0)
    if not held.any():
        return np.inf
    mass = np.bincount(levels[inside], np.where(inside, counts, 0)[inside], LEVELS)
    sharers = np.bincount(levels[held], minlength=LEVELS)
    kept = np.where(held, mass[levels] / np.maximum(sharers[levels], 1), 0.0)
    present = clipped > 0
    p = clipped[present] / clipped.sum()
    q = np.maximum(kept[present] / max(kept.sum(), 1.0), 1e-12)
    return float((p * np.log(p / q)).sum())
