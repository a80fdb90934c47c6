"""The median of runs that come in blocks, and how far it can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 2026
# Neighbouring blocks share what the machine was doing, for a longer or a shorter time: so many groups of them are
# resampled together, and of the intervals the widest counts.
GROUPS = (40, 20, 10)
# Below this nothing is known of how groups differ.
LEAST_GROUPS = 8
_BINS = 2048


def interval_of_median(
    blocks: Sequence[Sequence[float]],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Return the interval of the median of all runs, by bootstrap over blocks in the order of time.

    Runs of a block are kept together, and blocks in ``GROUPS``, since a busy moment of the machine hits them all:
    resampling single runs gives intervals that are too narrow. Percentile intervals of few groups are too narrow as
    well, by what Student's t is wider than a normal distribution, and are widened by that. With fewer than
    ``LEAST_GROUPS`` blocks it is the range of the runs. Above ``_BINS`` runs, medians are taken to the nearest of so
    many quantiles of all runs. Raises ValueError where there is no run.
    """
    filled = [np.asarray(block, dtype=np.float64) for block in blocks if len(block)]
    if not filled:
        raise ValueError("an interval needs at least one run")
    runs = np.concatenate(filled)
    if len(filled) < LEAST_GROUPS:
        return float(runs.min()), float(runs.max())
    tail = 50 * (1 - confidence)
    middle = float(np.median(runs))
    low = high = middle
    for groups in sorted({min(number, len(filled)) for number in GROUPS}):
        medians = _medians(filled, runs, groups, resamples, seed)
        wider = _widening(groups, confidence)
        below, above = np.percentile(medians, [tail, 100 - tail])
        low = min(low, middle - wider * (middle - float(below)))
        high = max(high, middle + wider * (float(above) - middle))
    return low, high


def _widening(groups: int, confidence: float) -> float:
    """Return how much wider an interval of the mean of so many groups is than the bootstrap's.

    Source: the expansion of Student's t around the normal quantile by Cornish and Fisher, to the second order.
    """
    z, free = statistics.NormalDist().inv_cdf((1 + confidence) / 2), groups - 1
    student = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return student / z * math.sqrt(groups / free)


def _medians(blocks: Sequence[np.ndarray], runs: np.ndarray, groups: int, resamples: int, seed: int) -> np.ndarray:
    """Return the medians of resampled ``groups``, which are as long as each other but for one block."""
    counts, values = _table(blocks, runs, groups)
    chances = np.full(groups, 1 / groups)
    drawn = np.random.default_rng(seed).multinomial(groups, chances, size=resamples).astype(np.float32)
    reached = np.cumsum(drawn @ counts, axis=1)
    half = reached[:, -1:] / 2
    lower, upper = (reached >= half).argmax(axis=1), (reached > half).argmax(axis=1)
    medians: np.ndarray = (values[lower] + values[upper]) / 2
    return medians


def _table(blocks: Sequence[np.ndarray], runs: np.ndarray, groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many runs of each group of blocks lie in each bin of all runs in order, and the value of each bin."""
    group = np.concatenate([np.full(len(block), index * groups // len(blocks)) for index, block in enumerate(blocks)])
    order = np.argsort(runs, kind="stable")
    bins = min(_BINS, len(runs))
    place = np.arange(len(runs)) * bins // len(runs)
    counts = np.zeros((groups, bins), dtype=np.float32)
    np.add.at(counts, (group[order], place), 1)
    first = np.searchsorted(place, np.arange(bins))
    last = np.append(first[1:], len(runs)) - 1
    return counts, runs[order][(first + last) // 2]
