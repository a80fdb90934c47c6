"""The median of runs that come in blocks, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000
SEED = 2026
# Neighbouring blocks share what the machine was doing: they are resampled together, so that no more than so many are.
MOST_GROUPS = 40
# Below this nothing is known of how groups differ.
LEAST_GROUPS = 8
_BINS = 2048


def interval_of_median(
    blocks: Sequence[Sequence[float]],
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[float, float]:
    """Return the percentile interval of the median of all runs, by bootstrap over blocks in the order of time.

    Runs of a block are kept together, since a busy moment of the machine hits them all: single runs are not
    independent, and resampling them gives intervals that are too narrow. With fewer than ``LEAST_GROUPS`` blocks it is
    the range of the runs. Above ``_BINS`` runs, medians are taken to the nearest of so many quantiles of all runs.
    Raises ValueError where there is no run.
    """
    filled = [np.asarray(block, dtype=np.float64) for block in blocks if len(block)]
    if not filled:
        raise ValueError("an interval needs at least one run")
    runs = np.concatenate(filled)
    if len(filled) < LEAST_GROUPS:
        return float(runs.min()), float(runs.max())
    counts, values = _table(filled, runs)
    generator = np.random.default_rng(seed)
    groups = len(counts)
    drawn = generator.multinomial(groups, np.full(groups, 1 / groups), size=resamples).astype(np.float32)
    reached = np.cumsum(drawn @ counts, axis=1)
    half = reached[:, -1:] / 2
    lower, upper = (reached >= half).argmax(axis=1), (reached > half).argmax(axis=1)
    medians = (values[lower] + values[upper]) / 2
    tail = 50 * (1 - confidence)
    low, high = np.percentile(medians, [tail, 100 - tail])
    return float(low), float(high)


def _table(blocks: Sequence[np.ndarray], runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how many runs of each group of blocks lie in each bin of all runs in order, and the value of each bin."""
    size = -(-len(blocks) // MOST_GROUPS)
    group = np.concatenate([np.full(len(block), index // size) for index, block in enumerate(blocks)])
    order = np.argsort(runs, kind="stable")
    bins = min(_BINS, len(runs))
    place = np.arange(len(runs)) * bins // len(runs)
    counts = np.zeros((int(group[-1]) + 1, bins), dtype=np.float32)
    np.add.at(counts, (group[order], place), 1)
    first = np.searchsorted(place, np.arange(bins))
    last = np.append(first[1:], len(runs)) - 1
    return counts, runs[order][(first + last) // 2]
