"""Figures of samples: the interval's coverage with its negative twin, and outliers with and without a known reason."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deploykit.latency.statistics import UNEXPLAINED, explain_outliers, interval_of_median, summarise, two_humps
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


def _one_slow(beyond_s: float, place: int = 65, **carried: Any) -> Latency:
    """Ten runs a second of 0.1 s, one of which takes ``beyond_s`` more."""
    samples = [0.1 + 0.001 * (index % 5) for index in range(100)]
    samples[place] = 0.102 + beyond_s
    return replace(_latency(samples), starts_s=tuple(index / 10 for index in range(100)), **carried)


@pytest.mark.parametrize(
    ("changed", "large", "reason"),
    [
        ({"steal_s": 3.0}, 4.0, "steal"),
        ({"quota_throttled": 1}, 0.15, "share"),
        ({"throttled": 1}, 0.2, "heat"),
        ({"major_faults": 26}, 0.3, "disk"),
        ({"preempted": 106}, 0.7, "preempted"),
        ({"minor_faults": 100_070}, 0.3, "mapped"),
        ({"frequency_hz": 1.5e9}, 0.15, "frequency"),
        ({"temperature_c": 80.0}, 0.08, "hotter"),
        ({"other_load": 1.5}, 0.08, "busy"),
    ],
)
def test_an_outlier_is_flagged_kept_and_explained_by_what_is_large_enough(
    changed: dict[str, object], large: float, reason: str
) -> None:
    (found,) = explain_outliers(_one_slow(large), _conditions(**changed))
    assert (found.index, found.seconds) == (65, pytest.approx(0.102 + large))
    assert reason in found.reason
    (found,) = explain_outliers(_one_slow(20 * large), _conditions(**changed))
    assert found.reason == UNEXPLAINED
    (found,) = explain_outliers(_one_slow(large), _conditions())
    assert found.reason == UNEXPLAINED


def test_what_happens_all_the_time_is_a_reason_too() -> None:
    constant = [replace(one, preempted=50 * int(one.time_s)) for one in _conditions()]
    (found,) = explain_outliers(_one_slow(0.2), constant)
    assert "preempted" in found.reason


def test_an_outlier_at_another_time_is_not_explained_by_it() -> None:
    for conditions in (_conditions(steal_s=3.0), [], _conditions()[5:]):
        (found,) = explain_outliers(_one_slow(0.8, place=15), conditions)
        assert found.reason == UNEXPLAINED
    (found,) = explain_outliers(replace(_one_slow(0.8), starts_s=()), _conditions(steal_s=3.0))
    assert found.reason == UNEXPLAINED


def _at(place: int, value: float) -> tuple[float, ...]:
    return tuple(value if index == place else 0 for index in range(100))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("major_faults", 8, "disk"), ("minor_faults", 60_000, "mapped"), ("away_s", 0.2, "caches")],
)
def test_the_run_itself_says_why_and_not_the_stretch_around_it(field: str, value: float, reason: str) -> None:
    busy = _conditions(minor_faults=900_000, major_faults=500, preempted=900)
    carried: dict[str, Any] = dict.fromkeys(("minor_faults", "major_faults", "away_s"), _at(65, 0))
    (found,) = explain_outliers(_one_slow(0.1, **carried), busy)
    assert found.reason == UNEXPLAINED
    slow = _one_slow(0.1, **{**carried, field: _at(65, value)})
    taken = tuple(own + away for own, away in zip(slow.samples_s, slow.away_s, strict=True))
    (found,) = explain_outliers(replace(slow, samples_s=taken), busy)
    assert reason in found.reason
    assert found.seconds == pytest.approx(0.202)
    (found,) = explain_outliers(_one_slow(0.1, **{**carried, field: _at(64, value / 1e6)}), busy)
    assert found.reason == UNEXPLAINED


def test_one_page_fault_is_no_reason_for_a_long_run_nor_are_those_of_every_run() -> None:
    (found,) = explain_outliers(_one_slow(0.5, minor_faults=_at(65, 1), major_faults=_at(65, 1)))
    assert found.reason == UNEXPLAINED
    (found,) = explain_outliers(_one_slow(0.5, minor_faults=(10**6,) * 100))
    assert found.reason == UNEXPLAINED


def test_very_many_runs_are_summarised_in_moments() -> None:
    samples = np.random.default_rng(8).pareto(1.5, 100_000) + 1
    faults = (0,) * len(samples)
    many = replace(_latency(samples.tolist()), minor_faults=faults, major_faults=faults, away_s=(0.0,) * len(samples))
    began = time.process_time()
    assert len(summarise(many).outliers) > 1000
    assert time.process_time() - began < 10


def test_a_fast_run_has_no_reason_of_a_slow_one() -> None:
    (found,) = explain_outliers(_one_slow(-0.09), _conditions(steal_s=3.0))
    assert found.reason == UNEXPLAINED


def test_figures_are_without_what_other_programs_took_and_the_samples_keep_it() -> None:
    away = tuple(0.004 * (index % 2) for index in range(60))
    taken = tuple(0.003 + other for other in away)
    latency = replace(_latency(list(taken)), away_s=away)
    found = summarise(latency)
    assert (found.median_s, found.percentiles_s[90]) == (pytest.approx(0.003), pytest.approx(0.003))
    assert latency.preempted == 0.5
    assert latency.samples_s == taken
    assert found.humps == ()
    assert replace(latency, away_s=()).preempted is None
    assert len(summarise(replace(latency, away_s=())).humps) == 2


def test_two_humps_are_seen_and_one_is_not_taken_for_two() -> None:
    rng = np.random.default_rng(7)
    one, two = rng.normal(3e-3, 1e-4, 300), rng.normal(5e-3, 2e-4, 100)
    low, high = two_humps([*one, *two, 0.5])
    assert (low.median_s, high.median_s) == (pytest.approx(3e-3, rel=0.02), pytest.approx(5e-3, rel=0.03))
    assert low.share == pytest.approx(0.75, abs=0.01)
    skewed = np.exp(rng.normal(-6, 0.5, 400))
    near = [*one, *rng.normal(3.1e-3, 1e-4, 300)]
    for samples in (one, skewed, rng.uniform(1, 3, 400), [*one, *two[:20]], near, one[:10], [1.0] * 100, []):
        assert two_humps(samples) == ()


def test_runs_that_only_spread_are_no_outliers() -> None:
    rng = np.random.default_rng(5)
    assert explain_outliers(_latency(rng.normal(1, 0.1, 500).tolist())) == ()
    assert explain_outliers(_latency([])) == ()
    assert len(explain_outliers(_latency([*rng.normal(1, 0.01, 99).tolist(), 0.2]))) == 1
