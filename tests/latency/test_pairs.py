"""Verdicts on a simulated noisy machine, whose truth is known, and what goes wrong without each part of the method."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from noise_cases import Machine, rounds_of

from deploykit.comparison_records import Judgement, Verdict
from deploykit.latency import pairs
from deploykit.latency.pairs import ERROR, LOOKS, MIN_ROUNDS, as_samples, judge, level_of_look, preempted

NOISY = Machine()
CALM = Machine(session_sd=0.002, order_effect=0.003, jitter=0.003, swings=0.0, bursts=0.2, drift=0.002)
ANY = (Verdict.FASTER, Verdict.SLOWER)


def _verdicts(machine: Machine, trials: int, slower_by: float = 0.0) -> Counter[Verdict]:
    return Counter(
        judge(as_samples(rounds_of(machine, seed, slower_by=slower_by)), seed=seed).verdict for seed in range(trials)
    )


def _once(slower_by: float, machine: Machine = CALM, margin: float = 0.02) -> Judgement:
    return judge(as_samples(rounds_of(machine, 1, slower_by=slower_by)), margin=margin)


def test_of_two_hundred_trials_with_nothing_to_find_at_most_one_finds_something() -> None:
    found = _verdicts(NOISY, 200)
    assert sum(found[verdict] for verdict in ANY) <= 1
    assert found[Verdict.SAME] >= 100


@pytest.mark.parametrize(("slower_by", "verdict"), [(0.10, Verdict.SLOWER), (-0.09, Verdict.FASTER)])
def test_ten_per_cent_are_found(slower_by: float, verdict: Verdict) -> None:
    assert _verdicts(NOISY, 60, slower_by)[verdict] >= 57


def test_five_per_cent_are_found_or_left_open() -> None:
    found = _verdicts(NOISY, 60, 0.05)
    assert found[Verdict.SLOWER] >= 48
    assert found[Verdict.SLOWER] + found[Verdict.INCONCLUSIVE] == 60


def test_the_figures_are_those_of_b_relative_to_a() -> None:
    judged = _once(0.2)
    assert judged.effect is not None
    assert judged.control is not None
    assert judged.effect.low < 1.2 < judged.effect.high
    assert judged.control.low < 1 < judged.control.high
    assert judged.effect.ratio == pytest.approx(1.2, rel=0.01)


def test_the_threshold_is_the_greater_of_margin_and_noise_floor() -> None:
    calm, noisy = _once(0.0), _once(0.0, replace(NOISY, session_sd=0.05))
    assert calm.noise_floor is not None
    assert calm.threshold == pytest.approx(0.02)
    assert calm.noise_floor < 0.02
    assert noisy.threshold == noisy.noise_floor
    assert noisy.noise_floor is not None
    assert noisy.noise_floor > 0.02
    assert noisy.smallest_effect is not None
    assert calm.smallest_effect is not None
    assert noisy.smallest_effect > noisy.threshold
    assert noisy.smallest_effect > calm.smallest_effect


def test_what_is_beyond_the_margin_but_not_beyond_the_noise_floor_is_left_open() -> None:
    samples = as_samples(rounds_of(CALM, 1, slower_by=0.06))
    assert judge(samples).verdict is Verdict.SLOWER
    # Only the control is made noisy: every second session of A is slow, and the effect is put back to 6 %.
    shift = np.where(np.arange(len(samples)) % 2, 0.15, -0.05)[:, None, None]
    samples[..., 2] *= np.exp(shift)
    samples[..., 1] *= np.exp(shift / 2)
    judged = judge(samples)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert "not beyond the noise floor" in judged.reason
    assert judged.effect is not None
    assert judged.effect.low > 1.02


@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.02, Verdict.SLOWER), (0.10, Verdict.SAME), (0.05, Verdict.INCONCLUSIVE)]
)
def test_the_same_difference_is_judged_by_the_margin(margin: float, verdict: Verdict) -> None:
    assert _once(0.05, margin=margin).verdict is verdict


def test_sessions_made_in_one_order_alone_would_be_taken_for_a_difference() -> None:
    machine = replace(CALM, order_effect=0.08)
    turned = as_samples(rounds_of(machine, 3))
    fixed = as_samples(rounds_of(machine, 3, order=lambda index: (1, 0, 2)))
    assert judge(turned).verdict not in ANY
    assert judge(fixed).verdict is Verdict.FASTER


def test_runs_taken_for_independent_would_give_intervals_that_miss_the_truth() -> None:
    machine = replace(CALM, session_sd=0.02)
    whole = single = 0
    for seed in range(40):
        effect = pairs.effect_of(as_samples(rounds_of(machine, seed, rounds=6, triples=8)))
        location, _, half = pairs.estimate(effect, 0.99, seed)
        whole += abs(location) > half
        location, _, half = pairs.estimate(effect.reshape(-1, 1, 1), 0.99, seed)
        single += abs(location) > half
    assert whole <= 2
    assert single >= 10


def test_what_other_processes_take_is_taken_off() -> None:
    rounds = rounds_of(replace(CALM, preempted=0.5), 5, slower_by=0.1)
    judged = judge(as_samples(rounds))
    assert judged.verdict is Verdict.SLOWER
    assert preempted(rounds) == pytest.approx(0.5, abs=0.1)
    untouched = [replace(one, away_s=()) for one in rounds]
    assert judge(as_samples(untouched)).verdict is Verdict.INCONCLUSIVE
    assert preempted(untouched) == 0


def test_too_few_rounds_say_nothing() -> None:
    samples = as_samples(rounds_of(CALM, 1, slower_by=0.5))
    for rounds in (0, MIN_ROUNDS - 1):
        judged = judge(samples[:rounds])
        assert judged.verdict is Verdict.INCONCLUSIVE
        assert judged.effect is None
        assert f"only {rounds} rounds" in judged.reason
    assert judge(samples[:MIN_ROUNDS]).verdict is Verdict.SLOWER


def test_the_error_is_spent_over_the_looks_almost_all_of_it_at_the_last() -> None:
    spent = [1 - level_of_look(look) for look in range(len(LOOKS))]
    assert sum(spent) == pytest.approx(ERROR)
    assert spent == sorted(spent)
    assert spent[-1] > 0.8 * ERROR
    samples = as_samples(rounds_of(NOISY, 1))
    early, late = judge(samples, look=0), judge(samples)
    assert early.effect is not None
    assert late.effect is not None
    assert early.effect.low < late.effect.low < late.effect.high < early.effect.high


def test_the_same_samples_and_seed_give_the_same_judgement() -> None:
    samples = as_samples(rounds_of(NOISY, 7))
    assert judge(samples, seed=3) == judge(samples, seed=3)
    assert judge(samples, seed=3) != judge(samples, seed=4)
