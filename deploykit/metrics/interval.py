"""Confidence intervals by bootstrap over images: how much a mean would move on other images of the same kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 2000
METHOD = "percentile"
SEED = 20_260
# How many values are resampled at once, which bounds the memory.
_AT_ONCE = 4_000_000

Statistic = Callable[..., Any]


def bootstrap_interval(samples: Sequence[ArrayLike], statistic: Statistic = np.mean) -> tuple[float, float] | None:
    """Return the 95 % percentile bootstrap interval of ``statistic`` over the images; None for fewer than two.

    ``samples`` are arrays (n,) with one entry for each image; they are resampled together, so that what belongs to
    one image stays together. ``statistic(*samples, axis=...)`` works along an axis. The seed is fixed: the same
    values give the same interval.
    """
    arrays = [np.asarray(values) for values in samples]
    if len(arrays[0]) < 2:
        return None
    found = stats.bootstrap(
        arrays,
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=max(1, min(RESAMPLES, _AT_ONCE // len(arrays[0]))),
        confidence_level=CONFIDENCE,
        method=METHOD,
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return float(found.low), float(found.high)
