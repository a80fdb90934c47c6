from __future__ import annotations

import numpy as np
import pytest

from deploykit.metrics.interval import bootstrap_interval
from deploykit.metrics.overlap import pooled_two_class_miou


def plain_bootstrap(values: np.ndarray, resamples: int = 4000) -> tuple[float, float]:
    rng = np.random.default_rng(5)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def test_another_implementation_agrees():
    values = np.random.default_rng(1).beta(20, 1, 60)
    low, high = bootstrap_interval([values])
    other = plain_bootstrap(values)
    width = high - low
    assert (low, high) == pytest.approx(other, abs=0.08 * width)
    error = values.std(ddof=1) / np.sqrt(60)
    assert width == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert (low, high) != pytest.approx(plain_bootstrap(values[:15]), abs=0.08 * width)


def test_it_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(150):
        low, high = bootstrap_interval([rng.beta(8, 2, 50)])
        hits += low <= 0.8 <= high
    assert 0.88 <= hits / 150 <= 0.99


def test_it_is_decided_by_the_values():
    values = np.random.default_rng(3).random(40)
    assert bootstrap_interval([values]) == bootstrap_interval([values])
    assert bootstrap_interval([values]) != bootstrap_interval([values**2])


def test_more_images_make_it_narrower():
    values = np.random.default_rng(4).random(800)
    few, many = bootstrap_interval([values[:50]]), bootstrap_interval([values])
    assert (few[1] - few[0]) / (many[1] - many[0]) == pytest.approx(4, rel=0.3)


def test_images_stay_together():
    # Each image's two values add up to 1, whichever are drawn.
    values = np.random.default_rng(5).random(30)

    def total(a, b, axis=-1):
        return np.mean(a, axis=axis) + np.mean(b, axis=axis)

    assert bootstrap_interval([values, 1 - values], total) == pytest.approx((1.0, 1.0))
    apart = bootstrap_interval([values, np.roll(1 - values, 1)], total)
    assert apart[1] - apart[0] > 0.05


def test_counts_of_images_are_pooled_in_every_resample():
    rng = np.random.default_rng(6)
    counts = [rng.integers(1, 500, 25) for _ in range(4)]
    low, high = bootstrap_interval(counts, pooled_two_class_miou)
    assert low < pooled_two_class_miou(*counts) < high


def test_the_extremes():
    assert bootstrap_interval([np.array([0.5])]) is None
    assert bootstrap_interval([np.array([])]) is None
    assert bootstrap_interval([np.full(20, 0.25)]) == (0.25, 0.25)
    low, high = bootstrap_interval([np.array([0.0, 1.0])])
    assert (low, high) == (0.0, 1.0)
