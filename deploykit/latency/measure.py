"""Interleaved sampling: several runners share one stretch of time, so that a busy moment of the machine hits all."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploykit.errors import UsageError
from deploykit.latency_records import Latency
from deploykit.vocab import Precision, Target

MIN_RUNS = 50
MIN_SECONDS = 1.0
# As LiteRT's benchmark_model does; three runs let slow runners pass their first allocations too.
WARMUP_SECONDS = 0.5
WARMUP_RUNS = 3
ORDER_SEED = 2026
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Runner:
    """One thing to measure: ``run`` does exactly one inference; the rest is what its Latency will say of it."""

    name: str
    run: Callable[[], object]
    device: str
    driver: str
    accelerator: str
    threads: int
    size_bytes: int | None = None
    runtime: str = ""
    target: Target | None = None
    precision: Precision | None = None
    content_hash: str | None = None


MAX_SECONDS = 10.0
PRECISION_TARGET = 0.02
AUTOMATIC = "auto"
_NOT_LIMITS = ("startup", "profile", "affinity")


@dataclass(frozen=True)
class Protocol:
    """What is done to each subject; times are sums of its own runs.

    Warm-up: at least so many runs and seconds, until the median of a window of runs changes by less than
    ``warmup_change`` from one to the next, at most ``max_warmup_seconds``. Then at least ``min_runs`` and
    ``min_seconds``, and on until the 95 % interval of the median reaches no further than ``precision_target``, a share
    of the median, to either side (None: not asked for), or ``max_seconds`` are over. ``affinity``: the cores to pin
    to, "auto" for idle ones, as many as threads, or None. ``startup`` measures loading and the first inference in a
    process for each as well; ``profile`` the time of each operation.
    """

    min_runs: int = MIN_RUNS
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS
    precision_target: float | None = PRECISION_TARGET
    warmup_runs: int = 3
    warmup_seconds: float = 0.5
    max_warmup_seconds: float = 5.0
    warmup_change: float = 0.03
    block_seconds: float = 0.05
    profile_runs: int = 50
    seed: int = 2026
    startup: bool = True
    profile: bool = False
    affinity: str | tuple[int, ...] | None = AUTOMATIC

    def phases(self) -> tuple[str, ...]:
        """Return what the agent does, in order."""
        return (*(("startup",) if self.startup else ()), "steady", *(("profile",) if self.profile else ()))

    def limits(self) -> dict[str, Any]:
        """Return what the plan of the agent says of limits."""
        return {key: value for key, value in asdict(self).items() if key not in _NOT_LIMITS}


def check_plan(
    threads: int,
    min_runs: int,
    min_seconds: float,
    max_seconds: float = MAX_SECONDS,
    precision_target: float | None = None,
) -> None:
    """Raise UsageError unless threads, runs, seconds and the width of the interval can be had."""
    rows = (
        ("--threads", threads, threads >= 1, "at least 1"),
        ("--runs", min_runs, min_runs >= 1, "at least 1"),
        ("--seconds", min_seconds, math.isfinite(min_seconds) and min_seconds >= 0, "0 or more"),
        ("--max-seconds", max_seconds, math.isfinite(max_seconds) and max_seconds >= 0, "0 or more"),
        (
            "--precision-target",
            precision_target,
            precision_target is None or 0 < precision_target < 1,
            "more than 0 % and less than 100 %",
        ),
    )
    for option, found, good, expected in rows:
        if not good:
            raise UsageError(f"{option} is out of range.", found=str(found), expected=expected)


def measure_interleaved(
    runners: Sequence[Runner],
    *,
    min_runs: int = MIN_RUNS,
    min_seconds: float = MIN_SECONDS,
    report: Callable[[str], None] | None = None,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> tuple[Latency, ...]:
    """Return one Latency per runner, in their order, each of at least ``min_runs`` runs and ``min_seconds``.

    After the warm-up, rounds of single runs follow, in an order shuffled anew (and seeded) for each. A runner that
    needs fewer runs than the fastest one sits out rounds evenly, so that a slow one costs about ``min_runs`` runs
    and still covers the same stretch of time. ``clock`` returns nanoseconds; the garbage collector is off during a
    run. What a runner raises ends the measurement.
    """
    say = report or (lambda message: None)
    turns = []
    for runner in runners:
        say(f"warming up {runner.name}")
        turns.append(_Turn(runner, _warm_up(runner.run, clock), min_runs, round(min_seconds * _SECOND_NS)))
    _sample(turns, say, clock)
    return tuple(turn.latency() for turn in turns)


class _Turn:
    """How far one runner has come, and when it is due next."""

    def __init__(self, runner: Runner, warmup: Sequence[int], min_runs: int, min_ns: int) -> None:
        self.runner = runner
        self.warmup_runs = len(warmup)
        self.min_runs = min_runs
        self.min_ns = min_ns
        self.wanted = max(min_runs, math.ceil(min_ns / max(1.0, statistics.median(warmup))))
        self.credit = 0
        self.times: list[int] = []
        self.total = 0

    def done(self) -> bool:
        return len(self.times) >= self.min_runs and self.total >= self.min_ns

    def due(self, rounds: int) -> bool:
        """Whether it runs in the next of ``rounds`` rounds, of which it needs ``wanted``."""
        self.credit += self.wanted
        if self.credit < rounds:
            return False
        self.credit -= rounds
        return True

    def take(self, clock: Callable[[], int]) -> None:
        self.times.append(_timed(self.runner.run, clock))
        self.total += self.times[-1]

    def latency(self) -> Latency:
        runner = self.runner
        return Latency(
            artifact=runner.name,
            device=runner.device,
            driver=runner.driver,
            accelerator=runner.accelerator,
            threads=runner.threads,
            warmup_runs=self.warmup_runs,
            samples_s=tuple(one / _SECOND_NS for one in self.times),
            size_bytes=runner.size_bytes,
            runtime=runner.runtime,
            target=runner.target,
            precision=runner.precision,
            content_hash=runner.content_hash,
        )


def _sample(turns: Sequence[_Turn], say: Callable[[str], None], clock: Callable[[], int]) -> None:
    rounds = max((turn.wanted for turn in turns), default=0)
    order = random.Random(ORDER_SEED)
    said = -1
    while not all(turn.done() for turn in turns):
        due = [turn for turn in turns if turn.due(rounds)]
        order.shuffle(due)
        for turn in due:
            turn.take(clock)
        quarters = min(4 * len(turn.times) // turn.wanted for turn in turns)
        if said < quarters < 4:
            said = quarters
            say(f"measuring, {25 * quarters} % done")


def _warm_up(run: Callable[[], object], clock: Callable[[], int]) -> list[int]:
    times: list[int] = []
    total = 0
    while len(times) < WARMUP_RUNS or total < WARMUP_SECONDS * _SECOND_NS:
        times.append(_timed(run, clock))
        total += times[-1]
    return times


def _timed(run: Callable[[], object], clock: Callable[[], int]) -> int:
    collecting = gc.isenabled()
    gc.disable()
    try:
        start = clock()
        run()
        return clock() - start
    finally:
        if collecting:
            gc.enable()
