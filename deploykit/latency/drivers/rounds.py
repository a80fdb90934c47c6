"""Sessions of several jobs, one at a time in shuffled order, until each is known well enough or time is up."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from deploykit.errors import DeviceError
from deploykit.latency.agent.median import LEAST_GROUPS, interval_of_median
from deploykit.latency.measure import Protocol
from deploykit.latency.recording import INTERRUPTED
from deploykit.latency_records import RunSummary, Stopped

# Of fewer the interval is no more than their range.
MIN_SESSIONS = LEAST_GROUPS


def session_runs(protocol: Protocol) -> int:
    """Return how many runs one session has at least."""
    return -(-protocol.min_runs // MIN_SESSIONS)


def session_seconds(protocol: Protocol) -> float:
    """Return how many seconds of runs one session has at least."""
    return protocol.min_seconds / MIN_SESSIONS


@dataclass
class Job:
    """One thing to measure on a device, and what its sessions gave: a summary each, and when each began.

    ``dropped`` is the reason why no more sessions of it can be had.
    """

    name: str
    sessions: list[RunSummary] = field(default_factory=list, kw_only=True)
    starts_s: list[float] = field(default_factory=list, kw_only=True)
    spent_s: float = field(default=0.0, kw_only=True)
    stopped: Stopped | None = field(default=None, kw_only=True)
    dropped: str = field(default="", kw_only=True)

    @property
    def centers_s(self) -> list[float]:
        """The middle of each session."""
        return [one.center_s for one in self.sessions]

    def interval_s(self) -> tuple[float, float]:
        """Return the interval of the median over sessions, resampled whole; there is at least one."""
        return interval_of_median([[one] for one in self.centers_s])


AnyJob = TypeVar("AnyJob", bound=Job)


def measure_rounds(
    jobs: Sequence[AnyJob],
    protocol: Protocol,
    take: Callable[[AnyJob], RunSummary | str],
    say: Callable[[str], None],
    *,
    started: float,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Fill ``jobs`` with sessions. ``take`` runs one session; a text is the reason why the job cannot be measured.

    Sessions begin in seconds since ``started``. Each job gets so many that an interval can be taken; its time is what
    passed during its sessions, starts and warm-ups among them, and when it is up there are no more. What ``take``
    raises ends it, and what the jobs hold by then stays.
    """
    order = random.Random(protocol.seed)
    while open_jobs := [job for job in jobs if job.stopped is None and not job.dropped]:
        order.shuffle(open_jobs)
        for job in open_jobs:
            began = clock()
            got = take(job)
            if isinstance(got, str):
                job.dropped = got
                continue
            job.sessions.append(got)
            job.starts_s.append(began - started)
            job.spent_s += clock() - began
            job.stopped = _why_stop(job, protocol)
            say(f"{job.name}: {len(job.sessions)} of {max(MIN_SESSIONS, len(job.sessions))} sessions or more")


def reason_of(error: BaseException) -> str:
    """Return in one line why a measurement ended early."""
    if isinstance(error, DeviceError):
        return f"{error.message} {error.found or ''}".strip()
    return INTERRUPTED


def _why_stop(job: Job, protocol: Protocol) -> Stopped | None:
    runs = sum(one.runs for one in job.sessions)
    seconds = sum(one.runs * one.mean_s for one in job.sessions)
    if len(job.sessions) < MIN_SESSIONS:
        return None
    time_is_up = job.spent_s >= protocol.max_seconds
    if runs < protocol.min_runs or seconds < protocol.min_seconds:
        return Stopped.TIME if time_is_up else None
    if protocol.precision_target is None:
        return Stopped.RUNS
    (low, high), middle = job.interval_s(), statistics.median(job.centers_s)
    if max(high - middle, middle - low) <= protocol.precision_target * middle:
        return Stopped.PRECISION
    return Stopped.TIME if time_is_up else None
