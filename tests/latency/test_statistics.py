"""Figures of samples: the interval's coverage with its negative twin, and outliers with and without a known reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deploykit.latency.statistics import UNEXPLAINED, explain_outliers, interval_of_median, summarise
from deploykit.latency_records import Conditions, Latency


def _blocks(rng: np.random.Generator, blocks: int = 40, runs: int = 10, shared: float = 0.1) -> list[list[float]]:
    """Runs around 1 s whose blocks are busy or not as a whole, as those of a shared machine are."""
    level = rng.normal(0, shared, size=(blocks, 1))
    return np.exp(level + rng.normal(0, 0.05, size=(blocks, runs))).tolist()


def _misses(trials: int, *, singly: bool) -> int:
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(trials):
        blocks = _blocks(rng)
        if singly:
            blocks = [[run] for run in rng.permutation([run for block in blocks for run in block])]
        low, high = interval_of_median(blocks, resamples=300)
        missed += not low <= 1.0 <= high
    return missed


def test_the_interval_holds_the_median_about_as_often_as_it_says() -> None:
    assert _misses(200, singly=False) <= 24


def test_resampling_single_runs_would_be_wrong_far_more_often() -> None:
    assert _misses(200, singly=True) > 60


def _misses_of_slow_noise(trials: int, *, shuffled: bool) -> int:
    """Count intervals without the median where the machine is busy or not for four blocks at a time."""
    rng = np.random.default_rng(6)
    missed = 0
    for _ in range(trials):
        levels = np.repeat(rng.normal(0, 0.1, size=(30, 1)), 4, axis=0)
        blocks = np.exp(levels + rng.normal(0, 0.03, size=(120, 5)))
        low, high = interval_of_median(rng.permutation(blocks) if shuffled else blocks, resamples=300)
        missed += not low <= 1.0 <= high
    return missed


def test_noise_that_lasts_longer_than_a_block_widens_the_interval() -> None:
    assert _misses_of_slow_noise(100, shuffled=False) <= 14


def test_blocks_out_of_the_order_of_time_would_hide_it() -> None:
    assert _misses_of_slow_noise(100, shuffled=True) > 20


def test_the_interval_narrows_with_more_blocks_and_is_seeded() -> None:
    rng = np.random.default_rng(2)
    few, many = _blocks(rng, 10), _blocks(rng, 400)
    reach = [high - low for low, high in (interval_of_median(few), interval_of_median(many))]
    assert reach[1] < reach[0] / 2
    assert interval_of_median(many) == interval_of_median(many)


def test_few_blocks_give_the_range_of_all_runs_and_none_an_error() -> None:
    assert interval_of_median([[3.0, 1.0], [2.0]]) == (1.0, 3.0)
    assert interval_of_median([[]] * 9 + [[5.0]]) == (5.0, 5.0)
    with pytest.raises(ValueError, match="at least one run"):
        interval_of_median([[]])


def test_many_runs_give_nearly_the_interval_of_exact_medians() -> None:
    blocks = _blocks(np.random.default_rng(3), blocks=40, runs=500)
    low, high = interval_of_median(blocks)
    rng = np.random.default_rng(4)
    exact = [np.median(np.concatenate([blocks[i] for i in rng.integers(0, 40, 40)])) for _ in range(400)]
    lowest, highest = np.percentile(exact, [2.5, 97.5])
    assert low <= lowest + 0.005
    assert high >= highest - 0.005
    assert high - low < 1.8 * (highest - lowest)


def _latency(samples: list[float], interval: tuple[float, float] | None = None) -> Latency:
    return Latency("a", "d", "host", "cpu", 1, 3, tuple(samples), interval_s=interval)


def test_figures_are_those_of_the_raw_samples() -> None:
    found = summarise(_latency([float(value) for value in range(1, 101)], (45.0, 52.0)))
    assert (found.runs, found.median_s, found.mad_s) == (100, 50.5, 25.0)
    assert found.percentiles_s == {50: 50.5, 90: 90.0, 95: 95.0, 99: 99.0}
    assert found.fps == pytest.approx(1 / 50.5)
    assert found.precision == pytest.approx(5.5 / 50.5)
    assert found.outliers == ()
    assert summarise(_latency([1.0])).precision is None


def _conditions(**changed: object) -> list[Conditions]:
    """Readings every second in which all counters rise steadily; those after 6 s are ``changed``."""
    steady = [
        Conditions(
            float(time),
            steal_s=0.01 * time,
            major_faults=time,
            minor_faults=10 * time,
            throttled=0,
            quota_throttled=0,
            preempted=time,
            frequency_hz=3e9,
            temperature_c=50.0,
            other_load=0.1,
        )
        for time in range(12)
    ]
    return [replace(one, **changed) if one.time_s > 6 else one for one in steady]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"steal_s": 3.0}, "steal"),
        ({"quota_throttled": 1}, "share"),
        ({"throttled": 1}, "heat"),
        ({"major_faults": 500}, "disk"),
        ({"preempted": 500}, "preempted"),
        ({"minor_faults": 9000}, "mapped"),
        ({"frequency_hz": 2e9}, "frequency"),
        ({"temperature_c": 80.0}, "hotter"),
        ({"other_load": 1.5}, "busy"),
        ({}, UNEXPLAINED),
    ],
)
def test_an_outlier_is_flagged_kept_and_explained_by_what_was_unusual_then(
    changed: dict[str, object], reason: str
) -> None:
    samples = [0.1 + 0.001 * (index % 5) for index in range(100)]
    samples[65] = 0.9
    starts = [index / 10 for index in range(100)]
    (found,) = explain_outliers(samples, starts, _conditions(**changed))
    assert (found.index, found.seconds) == (65, 0.9)
    assert reason in found.reason


def test_an_outlier_at_another_time_is_not_explained_by_it() -> None:
    samples = [0.1 + 0.001 * (index % 5) for index in range(100)]
    samples[15] = 0.9
    starts = [index / 10 for index in range(100)]
    for conditions in (_conditions(steal_s=3.0), [], _conditions()[5:]):
        (found,) = explain_outliers(samples, starts, conditions)
        assert found.reason == UNEXPLAINED
    (found,) = explain_outliers(samples, (), _conditions())
    assert found.reason == UNEXPLAINED


def test_runs_that_only_spread_are_no_outliers() -> None:
    rng = np.random.default_rng(5)
    assert explain_outliers(rng.normal(1, 0.1, 500).tolist()) == ()
    assert explain_outliers([]) == ()
    assert len(explain_outliers([*rng.normal(1, 0.01, 99).tolist(), 0.2])) == 1
