"""The scheduling and counting of interleaved sampling, on a clock that only the runners move."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from itertools import chain, pairwise, repeat

import pytest

from deploykit.errors import UsageError
from deploykit.latency.measure import Runner, check_plan, measure_interleaved

MS = 1_000_000


class Stage:
    """A clock in nanoseconds and the log of who ran."""

    def __init__(self) -> None:
        self.now = 0
        self.log: list[str] = []

    def clock(self) -> int:
        return self.now

    def runner(self, name: str, times: Iterator[int]) -> Runner:
        def run() -> None:
            self.log.append(name)
            self.now += next(times)

        return _runner(name, run)

    def sampled(self, *warmups: int) -> list[str]:
        """Return the log after the warm-up."""
        return self.log[sum(warmups) :]


def _runner(name: str, run: Callable[[], object]) -> Runner:
    return Runner(name, run, device="a machine", driver="host", accelerator="cpu", threads=2, size_bytes=7)


def test_equal_runners_take_turns_and_none_always_comes_first() -> None:
    stage = Stage()
    runners = [stage.runner(name, repeat(10 * MS)) for name in "ab"]
    first, second = measure_interleaved(runners, min_runs=60, min_seconds=0.0, clock=stage.clock)
    assert first.warmup_runs == second.warmup_runs == 50
    rounds = stage.sampled(50, 50)
    assert len(first.samples_s) == len(second.samples_s) == 60
    pairs = [rounds[index : index + 2] for index in range(0, 120, 2)]
    assert all(sorted(pair) == ["a", "b"] for pair in pairs)
    assert 15 <= sum(pair == ["a", "b"] for pair in pairs) <= 45


def test_the_order_is_seeded() -> None:
    logs = []
    for _ in range(2):
        stage = Stage()
        measure_interleaved([stage.runner(name, repeat(5 * MS)) for name in "abc"], clock=stage.clock)
        logs.append(stage.log)
    assert logs[0] == logs[1]


def test_a_slow_runner_does_its_minimum_spread_over_the_whole_run() -> None:
    stage = Stage()
    runners = [stage.runner("slow", repeat(300 * MS)), stage.runner("fast", repeat(MS))]
    slow, fast = measure_interleaved(runners, min_runs=50, min_seconds=1.0, clock=stage.clock)
    assert len(slow.samples_s) == 50
    assert len(fast.samples_s) == 1000
    assert slow.warmup_runs == 3
    log = stage.sampled(3, 500)
    places = [index for index, name in enumerate(log) if name == "slow"]
    assert {20, 21, 22} >= {after - before for before, after in pairwise(places)}


def test_min_seconds_is_kept_when_the_warm_up_was_slower() -> None:
    stage = Stage()
    (found,) = measure_interleaved(
        [stage.runner("a", chain(repeat(100 * MS, 5), repeat(4 * MS)))], min_runs=50, min_seconds=1.0, clock=stage.clock
    )
    assert found.warmup_runs == 5
    assert len(found.samples_s) == 250


def test_statistics_are_those_of_the_raw_samples() -> None:
    stage = Stage()
    times = chain(repeat(200 * MS, 3), (MS * value for value in (10, 1, 9, 2, 8, 3, 7, 4, 6, 5)))
    (found,) = measure_interleaved([stage.runner("a", times)], min_runs=10, min_seconds=0.0, clock=stage.clock)
    assert found.samples_s == (0.01, 0.001, 0.009, 0.002, 0.008, 0.003, 0.007, 0.004, 0.006, 0.005)
    assert found.median_s == pytest.approx(0.0055)
    assert found.p90_s == 0.009
    assert (found.artifact, found.device, found.threads, found.size_bytes) == ("a", "a machine", 2, 7)


def test_the_collector_rests_during_a_run_and_is_back_after_it() -> None:
    states: list[bool] = []
    stage = Stage()

    def run() -> None:
        states.append(gc.isenabled())
        stage.now += 200 * MS

    assert gc.isenabled()
    measure_interleaved([_runner("a", run)], min_runs=2, min_seconds=0.0, clock=stage.clock)
    assert states == [False] * 5
    assert gc.isenabled()


def test_what_a_runner_raises_comes_out_and_the_collector_is_back() -> None:
    def run() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        measure_interleaved([_runner("a", run)])
    assert gc.isenabled()


def test_progress_is_a_few_lines() -> None:
    stage = Stage()
    said: list[str] = []
    measure_interleaved([stage.runner("a", repeat(MS))], report=said.append, clock=stage.clock)
    assert said == ["warming up a", *(f"measuring, {share} % done" for share in (0, 25, 50, 75))]


def test_nothing_to_measure_gives_nothing() -> None:
    assert measure_interleaved([]) == ()


@pytest.mark.parametrize(
    ("threads", "runs", "seconds", "option"),
    [
        (0, 50, 1.0, "--threads"),
        (-1, 50, 1.0, "--threads"),
        (1, 0, 1.0, "--runs"),
        (1, 50, -1.0, "--seconds"),
        (1, 50, float("nan"), "--seconds"),
        (1, 50, float("inf"), "--seconds"),
    ],
)
def test_a_plan_out_of_range_is_refused(threads: int, runs: int, seconds: float, option: str) -> None:
    with pytest.raises(UsageError, match=option):
        check_plan(threads, runs, seconds)


def test_a_plan_at_the_edge_is_taken() -> None:
    check_plan(1, 1, 0.0)
