"""Warm-up, turns and stopping in the agent, on a clock that only the runs move."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from itertools import chain, groupby, repeat
from typing import Any

import pytest

from deploykit.errors import UsageError
from deploykit.latency.agent.meter import Meter
from deploykit.latency.agent.steady import PRECISION, RUNS, TIME, Turn, sample, warm_up
from deploykit.latency.measure import Protocol, check_plan

MS = 1_000_000


class Stage:
    """A clock in nanoseconds, the log of who ran, and the events."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []
        self.events: list[dict[str, Any]] = []

    def clock(self) -> int:
        return self.now

    def emit(self, event: str, **body: Any) -> None:
        self.events.append({"event": event, **body})

    def turn(self, name: str, times: Iterator[int], **changed: Any) -> Turn:
        def run() -> None:
            self.log.append(name)
            self.now += next(times)

        turn = Turn(name, Runs(run), Protocol(**{"precision_target": None, **changed}).limits())
        # Other programs take the core on the real clock alone.
        turn.meter = Meter(threads=2)
        return turn

    def measure(self, *turns: Turn) -> list[dict[str, Any]]:
        """Warm up and sample; return the blocks in the order of time."""
        for turn in turns:
            warm_up(turn, self.emit, self.clock)
        self.log.clear()
        sample(turns, 2026, self.emit, lambda: {"time_s": self.now / 1e9}, clock=self.clock)
        return [one for one in self.events if one["event"] == "samples"]


class Runs:
    runtime = "none"

    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run

    def steps(self) -> dict[str, float]:
        return {}


def _noisy(share: float, seed: int = 0) -> Iterator[int]:
    rng = random.Random(seed)
    return (round(10 * MS * rng.lognormvariate(0, share)) for _ in repeat(0))


def test_equal_subjects_take_turns_and_none_always_comes_first() -> None:
    stage = Stage()
    blocks = stage.measure(*(stage.turn(name, repeat(10 * MS), min_runs=300) for name in "ab"))
    order = [one["subject"] for one in blocks]
    pairs = [order[index : index + 2] for index in range(0, len(order), 2)]
    assert all(sorted(pair) == ["a", "b"] for pair in pairs)
    first = sum(pair == ["a", "b"] for pair in pairs)
    assert 0.2 * len(pairs) < first < 0.8 * len(pairs)
    assert all(len(one["samples_s"]) == 5 for one in blocks)


def test_the_order_is_seeded() -> None:
    logs = []
    for _ in range(2):
        stage = Stage()
        stage.measure(*(stage.turn(name, repeat(5 * MS)) for name in "abc"))
        logs.append(stage.log)
    assert logs[0] == logs[1]


def test_a_block_begins_with_a_run_that_does_not_count() -> None:
    stage = Stage()
    blocks = stage.measure(stage.turn("a", repeat(10 * MS)), stage.turn("b", repeat(10 * MS)))
    assert sum(len(one["samples_s"]) for one in blocks) == len(stage.log) - len(blocks)
    assert all(len(list(runs)) % 6 == 0 for _, runs in groupby(stage.log))


def test_a_slow_subject_does_its_least_and_a_fast_one_covers_the_same_time() -> None:
    stage = Stage()
    stage.measure(stage.turn("slow", repeat(190 * MS)), stage.turn("fast", repeat(MS)))
    ends = {one["subject"]: one for one in stage.events if one["event"] == "samples"}
    runs = {
        name: sum(len(o["samples_s"]) for o in stage.events if o.get("samples_s") and o["subject"] == name)
        for name in ends
    }
    assert runs["slow"] == 50
    assert runs["fast"] >= 1000
    assert abs(ends["slow"]["starts_s"][-1] - ends["fast"]["starts_s"][-1]) < 0.5


def test_warm_up_ends_when_the_median_is_steady() -> None:
    stage = Stage()
    falling = chain((MS * value for value in range(60, 10, -1)), repeat(10 * MS))
    stage.measure(stage.turn("a", falling))
    (warm,) = [one for one in stage.events if one["event"] == "warm"]
    assert warm["stable"]
    assert 50 < warm["runs"] < 110
    first = next(one for one in stage.events if one["event"] == "samples")
    assert set(first["samples_s"]) == {0.01}


def test_warm_up_of_what_never_settles_ends_in_time_and_says_so() -> None:
    stage = Stage()
    stage.measure(
        stage.turn("a", (MS * (10 + index % 7 * index % 50) for index in range(10**6)), max_warmup_seconds=2.0)
    )
    (warm,) = [one for one in stage.events if one["event"] == "warm"]
    assert not warm["stable"]
    assert 2.0 <= warm["seconds"] < 2.1


@pytest.mark.parametrize(
    ("share", "changed", "why"),
    [
        (0.1, {"precision_target": 0.02}, PRECISION),
        (0.5, {"precision_target": 0.001, "max_seconds": 3.0}, TIME),
        (0.5, {"precision_target": None}, RUNS),
    ],
)
def test_what_ended_it_is_said(share: float, changed: dict[str, Any], why: str) -> None:
    stage = Stage()
    blocks = stage.measure(stage.turn("a", _noisy(share), **changed))
    (stopped,) = [one for one in stage.events if one["event"] == "stopped"]
    assert stopped["why"] == why
    total = sum(sum(one["samples_s"]) for one in blocks)
    assert total >= 1.0
    low, high = stopped["interval_s"]
    assert low < 0.0101
    assert high > 0.0099
    reach = max(high - 0.01, 0.01 - low) / 0.01
    if why == PRECISION:
        assert reach < 0.03
    if why == TIME:
        assert 3.0 <= total < 3.2
        assert reach > 0.001


@pytest.mark.parametrize(
    ("run_ms", "max_seconds", "runs"), [(300, 3.0, 10), (300, 0.5, 5), (300, 0.0, 5), (2000, 3.0, 5), (1, 0.2, 200)]
)
@pytest.mark.parametrize("target", [None, 0.02])
def test_time_wins_over_runs_and_seconds_after_a_handful(
    run_ms: int, max_seconds: float, runs: int, target: float | None
) -> None:
    stage = Stage()
    changed = {"min_runs": 1000, "min_seconds": 60.0, "max_seconds": max_seconds, "precision_target": target}
    blocks = stage.measure(stage.turn("a", repeat(run_ms * MS), **changed))
    done = sum(len(one["samples_s"]) for one in blocks)
    assert runs <= done <= 1.1 * runs
    (stopped,) = [one for one in stage.events if one["event"] == "stopped"]
    assert stopped["why"] == TIME
    (warm,) = [one for one in stage.events if one["event"] == "warm"]
    assert warm["seconds"] <= max(min(3.0, max_seconds) + run_ms / 1000, 3 * run_ms / 1000)


def test_one_whose_time_is_up_waits_for_no_other() -> None:
    stage = Stage()
    changed = {"min_runs": 10_000, "max_seconds": 2.0}
    blocks = stage.measure(stage.turn("slow", repeat(100 * MS), **changed), stage.turn("fast", repeat(MS), **changed))
    for name in ("slow", "fast"):
        assert 2.0 <= sum(sum(one["samples_s"]) for one in blocks if one["subject"] == name) < 2.15


def test_more_noise_needs_more_runs_for_the_same_precision() -> None:
    counts = []
    for share in (0.05, 0.3):
        stage = Stage()
        blocks = stage.measure(stage.turn("a", _noisy(share), precision_target=0.02, max_seconds=1000.0))
        counts.append(sum(len(one["samples_s"]) for one in blocks))
    assert counts[1] > 3 * counts[0]


def test_the_collector_rests_during_a_run_and_is_back_after_it() -> None:
    states: list[bool] = []
    stage = Stage()
    turn = stage.turn("a", repeat(200 * MS), min_runs=2)
    plain = turn.session.run
    turn.session.run = lambda: (states.append(gc.isenabled()), plain())
    assert gc.isenabled()
    stage.measure(turn)
    assert set(states) == {False}
    assert gc.isenabled()


def test_a_run_that_raises_is_a_problem_and_the_collector_is_back() -> None:
    stage = Stage()
    stage.measure(stage.turn("good", repeat(10 * MS)), stage.turn("bad", chain(repeat(10 * MS, 100))))
    (problem,) = [one for one in stage.events if one["event"] == "problem"]
    assert (problem["subject"], problem["message"]) == ("bad", "StopIteration: ")
    assert [one["subject"] for one in stage.events if one["event"] == "stopped"] == ["good"]
    assert gc.isenabled()


def test_nothing_to_measure_gives_nothing() -> None:
    assert Stage().measure() == []


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"threads": 0}, "--threads"),
        ({"threads": -1}, "--threads"),
        ({"min_runs": 0}, "--runs"),
        ({"min_seconds": -1.0}, "--seconds"),
        ({"min_seconds": float("nan")}, "--seconds"),
        ({"min_seconds": float("inf")}, "--seconds"),
        ({"max_seconds": float("inf")}, "--max-seconds"),
        ({"max_seconds": -0.1}, "--max-seconds"),
        ({"precision_target": 0.0}, "--precision-target"),
        ({"precision_target": 1.0}, "--precision-target"),
        ({"precision_target": float("nan")}, "--precision-target"),
    ],
)
def test_a_plan_out_of_range_is_refused(wrong: dict[str, Any], option: str) -> None:
    with pytest.raises(UsageError, match=option):
        check_plan(**{"threads": 1, "min_runs": 50, "min_seconds": 1.0, **wrong})


def test_a_plan_at_the_edge_is_taken() -> None:
    check_plan(1, 1, 0.0, 0.0, 0.999)
