"""How long devices are measured: the least first, then until the median is known or time is up."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from deploykit.latency.drivers.rounds import MIN_SESSIONS, Job, measure_rounds, session_runs, session_seconds
from deploykit.latency.measure import Protocol
from deploykit.latency_records import RunSummary, Stopped

PROTOCOL = Protocol(min_runs=80, min_seconds=0.5, max_seconds=30.0, precision_target=0.02)


def session(center: float) -> RunSummary:
    return RunSummary(10, center, center, center, 0.0, center, center)


def measure(
    protocol: Protocol, take: Callable[[Job], RunSummary | str], *names: str, seconds: float = 1.0
) -> list[Job]:
    """Measure jobs of these names with sessions that take ``seconds`` each on a clock of their own."""
    now = [0.0]

    def tick() -> float:
        now[0] += seconds / 3
        return now[0]

    jobs = [Job(name) for name in names]
    measure_rounds(jobs, protocol, take, lambda message: None, started=0.0, clock=tick)
    return jobs


def test_a_steady_job_ends_with_the_least() -> None:
    (job,) = measure(PROTOCOL, lambda job: session(0.01), "a")
    assert (job.stopped, len(job.sessions)) == (Stopped.PRECISION, MIN_SESSIONS)
    assert job.interval_s() == (0.01, 0.01)


def test_without_a_target_the_least_is_all() -> None:
    (job,) = measure(replace(PROTOCOL, precision_target=None), lambda job: session(0.01), "a")
    assert job.stopped is Stopped.RUNS


def test_a_noisy_job_ends_when_its_time_is_up() -> None:
    noise = random.Random(1)
    (job,) = measure(PROTOCOL, lambda job: session(noise.uniform(0.01, 0.03)), "a")
    assert job.stopped is Stopped.TIME
    assert job.spent_s >= PROTOCOL.max_seconds
    assert len(job.sessions) > MIN_SESSIONS


def test_time_does_not_cut_the_least_short() -> None:
    noise = random.Random(1)
    (job,) = measure(PROTOCOL, lambda job: session(noise.uniform(0.01, 0.03)), "a", seconds=1000.0)
    assert (job.stopped, len(job.sessions)) == (Stopped.TIME, MIN_SESSIONS)


def test_sessions_are_asked_for_what_adds_up_to_the_least() -> None:
    assert session_runs(PROTOCOL) * MIN_SESSIONS >= PROTOCOL.min_runs
    assert session_seconds(PROTOCOL) * MIN_SESSIONS == pytest.approx(PROTOCOL.min_seconds)
    slow = replace(PROTOCOL, min_runs=200, precision_target=None)
    (job,) = measure(slow, lambda job: session(0.01), "a")
    assert sum(one.runs for one in job.sessions) == 200


def test_jobs_take_turns_in_another_order_each_round() -> None:
    order: list[str] = []

    def take(job: Job) -> RunSummary:
        order.append(job.name)
        return session(0.01)

    measure(PROTOCOL, take, "a", "b", "c")
    rounds = [tuple(order[index : index + 3]) for index in range(0, len(order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert len(set(rounds)) > 2


def test_a_job_that_cannot_go_on_leaves_the_others_alone() -> None:
    jobs = measure(PROTOCOL, lambda job: "no GPU" if job.name == "b" else session(0.01), "a", "b")
    assert [job.dropped for job in jobs] == ["", "no GPU"]
    assert [len(job.sessions) for job in jobs] == [MIN_SESSIONS, 0]


def test_what_was_measured_stays_when_a_session_raises() -> None:
    jobs = [Job("a")]
    count = iter(range(10))

    def take(job: Job) -> RunSummary:
        if next(count) == 3:
            raise KeyboardInterrupt
        return session(0.01)

    with pytest.raises(KeyboardInterrupt):
        measure_rounds(jobs, PROTOCOL, take, lambda message: None, started=0.0)
    assert len(jobs[0].sessions) == 3
