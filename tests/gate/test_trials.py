"""One error rate for many comparisons, and failures that are measured again.

Time is not measured here: comparisons come from simulated samples of a machine whose truth is known, or from records
that stand for a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from gate_cases import comparison, judgement
from latency.noise_cases import Machine, rounds_of

from deploykit.comparison import judged_again
from deploykit.comparison_records import Judgement, LatencyComparison, Side, Verdict
from deploykit.gate.trials import ERROR, Contest, budget_verdict, run_contests
from deploykit.gate_records import GateVerdict
from deploykit.latency.pairs import as_samples, judge, level_of_look

PASS, FAIL, INCONCLUSIVE, SKIPPED = GateVerdict.PASS, GateVerdict.FAIL, GateVerdict.INCONCLUSIVE, GateVerdict.SKIPPED
SLOWER = judgement(Verdict.SLOWER, 1.2)
SAME = judgement(Verdict.SAME, 1.0)
OPEN = judgement(Verdict.INCONCLUSIVE, 1.05, 0.03)


def contests(count: int) -> list[Contest]:
    return [Contest(str(index), f"before{index}", f"now{index}", 0.05) for index in range(count)]


def never(found: LatencyComparison, error: float) -> Judgement:
    raise AssertionError("nothing is to be judged again")


class Script:
    """Measures what it is told to, and keeps what it was asked for."""

    def __init__(self, **results: Sequence[Judgement | str]) -> None:
        self.results = {name[1:]: list(found) for name, found in results.items()}
        self.asked: list[tuple[str, float, float]] = []

    def __call__(self, contest: Contest, error: float, times: float) -> LatencyComparison | str:
        self.asked.append((contest.name, error, times))
        found = self.results[contest.name].pop(0)
        return found if isinstance(found, str) else comparison(found)


@pytest.mark.parametrize(
    ("judged", "verdict"),
    [
        (SLOWER, FAIL),
        (SAME, PASS),
        (OPEN, INCONCLUSIVE),
        (judgement(Verdict.FASTER, 0.7), PASS),
        (judgement(Verdict.INCONCLUSIVE, 0.96, 0.03), PASS),
        (judgement(Verdict.INCONCLUSIVE, 1.06, 0.005), INCONCLUSIVE),
        (Judgement(Verdict.INCONCLUSIVE, "too few rounds", 0.05, 2), INCONCLUSIVE),
    ],
)
def test_a_budget_is_kept_or_exceeded_by_the_whole_interval(judged: Judgement, verdict: GateVerdict) -> None:
    assert budget_verdict(judged) is verdict


def test_noise_above_the_margin_keeps_no_budget() -> None:
    noisy = Judgement(**{**judgement(Verdict.INCONCLUSIVE, 0.96, 0.03).__dict__, "noise_floor": 0.08})
    assert budget_verdict(noisy) is INCONCLUSIVE


def test_the_error_is_shared_by_all() -> None:
    script = Script(_0=[SAME], _1=[SAME], _2=[SAME], _3=[SAME])
    assert [one.verdict for one in run_contests(contests(4), script, never)] == [PASS] * 4
    assert [error for _, error, _ in script.asked] == [ERROR / 4] * 4


def test_a_failure_is_measured_again_before_it_is_reported() -> None:
    twice = Script(_0=[SLOWER, SLOWER])
    (failed,) = run_contests(contests(1), twice, never)
    assert (failed.verdict, failed.measured_times) == (FAIL, 2)
    assert "both times" in failed.reason
    assert failed.baseline_path == "before0"
    (once,) = run_contests(contests(1), Script(_0=[SLOWER, SAME]), never, retry=False)
    assert once.verdict is INCONCLUSIVE
    assert "not when measured anew" in once.reason
    (third,) = run_contests(contests(1), Script(_0=[SLOWER, SAME, SAME]), never)
    assert (third.verdict, third.measured_times) == (PASS, 3)


def test_what_noise_left_open_is_measured_once_more_for_twice_the_time() -> None:
    script = Script(_0=[OPEN, SAME])
    assert run_contests(contests(1), script, never)[0].verdict is PASS
    assert [times for _, _, times in script.asked] == [1.0, 2.0]
    assert run_contests(contests(1), Script(_0=[OPEN, OPEN]), never)[0].verdict is INCONCLUSIVE
    assert run_contests(contests(1), Script(_0=[OPEN, SLOWER, SLOWER]), never)[0].verdict is FAIL
    assert run_contests(contests(1), Script(_0=[OPEN, SLOWER, SAME]), never)[0].verdict is INCONCLUSIVE
    assert run_contests(contests(1), Script(_0=[OPEN]), never, retry=False)[0].verdict is INCONCLUSIVE


def test_what_cannot_be_measured_is_skipped_with_the_reason() -> None:
    (trial,) = run_contests(contests(1), Script(_0=["Core ML runs on macOS only"]), never)
    assert (trial.verdict, trial.reason) == (SKIPPED, "Core ML runs on macOS only")
    (lost,) = run_contests(contests(1), Script(_0=[SLOWER, "the device is gone"]), never, retry=False)
    assert lost.verdict is INCONCLUSIVE
    assert run_contests([], Script(), never) == ()


def test_failures_leave_their_error_to_the_others() -> None:
    judged: list[float] = []

    def again(found: LatencyComparison, error: float) -> Judgement:
        judged.append(error)
        return SLOWER if error > ERROR / 3 else OPEN

    script = Script(_0=[SLOWER, SLOWER], _1=[OPEN, SLOWER, SLOWER], _2=[SAME])
    trials = run_contests(contests(3), script, again)
    assert [one.verdict for one in trials] == [FAIL, FAIL, PASS]
    assert judged == [ERROR / 2]


CALM = Machine(session_sd=0.002, order_effect=0.003, jitter=0.003, swings=0.0, bursts=0.2, drift=0.002)


def simulated(machine: Machine, slower_by: float, seed: int) -> Callable[[Contest, float, float], LatencyComparison]:
    """Return what measures samples of a simulated machine, other ones each time."""
    calls = iter(range(1000))

    def measure(contest: Contest, error: float, times: float) -> LatencyComparison:
        drawn = seed * 1000 + next(calls)
        rounds = tuple(rounds_of(machine, drawn, slower_by=slower_by))
        judged = judge(as_samples(rounds), margin=contest.margin, seed=drawn, error=error)
        side = Side("a", "r", 0.01)
        return LatencyComparison(side, side, judged, 1, (), drawn, 1.0, 1.0, rounds=rounds)

    return measure


def test_fifteen_per_cent_are_found_in_one_of_four_and_nothing_in_the_others() -> None:
    slow, equal = simulated(CALM, 0.15, 1), simulated(CALM, 0.0, 2)

    def measure(contest: Contest, error: float, times: float) -> LatencyComparison | str:
        return (slow if contest.name == "2" else equal)(contest, error, times)

    trials = run_contests(contests(4), measure, judged_again)
    assert [one.verdict for one in trials] == [PASS, PASS, FAIL, PASS]
    assert trials[2].interval is not None
    assert trials[2].interval[0] < 1.15 < trials[2].interval[1]
    assert trials[2].ratio == pytest.approx(1.15, rel=0.02)


def test_fifty_runs_of_four_equal_files_on_a_noisy_machine_fail_never() -> None:
    found = [
        trial.verdict
        for run in range(50)
        for trial in run_contests(contests(4), simulated(Machine(), 0.0, 10 + run), judged_again)
    ]
    assert found.count(FAIL) == 0
    assert found.count(INCONCLUSIVE) <= 5


def test_a_smaller_error_gives_a_wider_interval() -> None:
    samples = as_samples(rounds_of(CALM, 3))
    wide, narrow = judge(samples, error=0.001).effect, judge(samples, error=0.05).effect
    assert wide is not None
    assert narrow is not None
    assert wide.low < narrow.low < narrow.high < wide.high
    assert sum(1 - level_of_look(look, 0.05) for look in range(4)) == pytest.approx(0.05)
