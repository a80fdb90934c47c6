"""The steady state of several sessions: warmed up, then in blocks of runs that take turns in random order."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .events import NANOSECONDS, Emit
from .median import LEAST_GROUPS, interval_of_median
from .meter import Meter

Clock = Callable[[], int]
Limits = Mapping[str, Any]
# Of a block of runs: starts_s, samples_s, and by run what the system says of it.
Found = Mapping[str, list[Any]]

PRECISION, RUNS, TIME = "precision reached", "runs done", "time is up"
_MOST_RUNS = 2000
# Time wins over everything else after so many runs.
LEAST_RUNS = 5
# A block of at least so many runs begins with one that does not count: the caches are full of something else.
_SETTLES = 4
_WINDOW_RUNS, _WINDOW_SECONDS = 5, 0.1
_STEADY_WINDOWS = 3
# The interval costs a few milliseconds: it is taken again when there are so many more blocks.
_GROWTH = 1.15
_LOOKS = 2
_CONDITIONS_EVERY_S = 0.2
# Threads of a pool go on waiting for work for a moment after a run.
_PAUSE_S = 0.005


class Turn:
    """How far one session has come. ``session`` has ``runtime``, ``run()`` and ``steps()``."""

    def __init__(self, name: str, session: Any, limits: Limits, threads: int = 1) -> None:
        self.name = name
        self.session = session
        self.threads = threads
        self.limits = limits
        self.meter = Meter(threads)
        self.runs_of_a_block = 1
        self.blocks: list[list[float]] = []
        self.runs = 0
        self.seconds = 0.0
        self.interval: tuple[float, float] | None = None
        self._width: float = math.inf
        self._narrow = 0
        self._looked = 0

    def take(self, found: Found) -> None:
        """Keep one block of runs: their time counts as it passed, their median without what other programs took."""
        self.blocks.append(_own(found))
        self.runs += len(found["samples_s"])
        self.seconds += sum(found["samples_s"])

    def time_is_up(self) -> bool:
        """Whether it has to stop: its time is over, and a handful of runs is done."""
        return bool(self.seconds >= self.limits["max_seconds"] and self.runs >= LEAST_RUNS)

    def least_is_done(self) -> bool:
        """Whether it has the runs and the seconds that were asked for."""
        return bool(self.runs >= self.limits["min_runs"] and self.seconds >= self.limits["min_seconds"])

    def enough(self, *, exactly: bool = False) -> bool:
        """Whether it may stop: time is up, or the least is done, and precision is reached or nobody asks for it.

        The interval is that of a few blocks before, unless it is to be known ``exactly``. It has to be narrow twice,
        some blocks apart: of many looks one may be narrow by chance.
        """
        if self.time_is_up():
            return True
        if not self.least_is_done():
            return False
        if self.limits["precision_target"] is None:
            return True
        if len(self.blocks) >= (self._looked + 1 if exactly else _GROWTH * self._looked):
            self._look()
        return self._narrow >= _LOOKS

    def why(self) -> str:
        """Return why it stopped, and take the interval of all runs."""
        self._look()
        target = self.limits["precision_target"]
        if not self.least_is_done():
            return TIME
        if target is None:
            return RUNS
        return PRECISION if self._width <= target else TIME

    def _look(self) -> None:
        self._looked = len(self.blocks)
        self.interval = interval_of_median(self.blocks, seed=self.limits["seed"])
        middle = statistics.median(run for block in self.blocks for run in block)
        self._width = max(self.interval[1] - middle, middle - self.interval[0]) / max(middle, 1e-12)
        target = self.limits["precision_target"]
        self._narrow = self._narrow + 1 if target is not None and self._width <= target else 0


def warm_up(turn: Turn, emit: Emit, clock: Clock = time.perf_counter_ns) -> None:
    """Run until the medians of the last windows agree, or the time for it is up; choose how many runs are a block."""
    limits = turn.limits
    medians: list[float] = []
    runs, total, stable = 0, 0.0, False
    longest = min(limits["max_warmup_seconds"], limits["max_seconds"])
    while not (stable and runs >= limits["warmup_runs"] and total >= limits["warmup_seconds"]):
        if total >= longest and runs >= limits["warmup_runs"]:
            break
        window: list[float] = []
        spent = 0.0
        while len(window) < _WINDOW_RUNS or spent < _WINDOW_SECONDS:
            found = _runs(turn, 1, clock)
            window.extend(_own(found))
            spent += sum(found["samples_s"])
            if total + spent >= longest and len(window) + runs >= limits["warmup_runs"]:
                break
        runs, total = runs + len(window), total + spent
        medians.append(statistics.median(window))
        last = medians[-_STEADY_WINDOWS:]
        stable = len(last) == _STEADY_WINDOWS and max(last) - min(last) <= limits["warmup_change"] * min(last)
    turn.session.steps()
    one = max(medians[-1], 1e-9)
    least = min(max(limits["min_runs"], limits["min_seconds"] / one), max(limits["max_seconds"] / one, LEAST_RUNS))
    turn.runs_of_a_block = max(1, min(int(limits["block_seconds"] / one), int(least / LEAST_GROUPS), _MOST_RUNS))
    emit("warm", subject=turn.name, runtime=turn.session.runtime, runs=runs, seconds=round(total, 6), stable=stable)


def sample(
    turns: Sequence[Turn],
    seed: int,
    emit: Emit,
    read_conditions: Callable[[], Mapping[str, Any]],
    *,
    origin_ns: int = 0,
    clock: Clock = time.perf_counter_ns,
) -> None:
    """Sample rounds of one block for each turn, in an order drawn anew each time, until all have enough.

    One that has enough goes on while others have not, so that all cover the same stretch of time, until its own time is
    up. A run that raises ends its turn: the exception goes out as a ``problem``.
    """
    order = random.Random(seed)
    emit("conditions", **read_conditions())
    read = clock()
    going = list(turns)
    block = 0
    while going and not (all(turn.enough() for turn in going) and all(turn.enough(exactly=True) for turn in going)):
        in_time = [turn for turn in going if not turn.time_is_up()]
        for turn in order.sample(in_time, len(in_time)):
            try:
                if turn.runs_of_a_block >= _SETTLES:
                    turn.session.run()
                    turn.session.steps()
                found = _runs(turn, turn.runs_of_a_block, clock, origin_ns)
            except Exception as error:  # runtimes raise classes of their own
                emit("problem", subject=turn.name, phase="steady", message=said(error))
                going.remove(turn)
                continue
            turn.take(found)
            emit("samples", subject=turn.name, session=0, block=block, **found, steps=turn.session.steps())
            block += 1
            if clock() - read >= _CONDITIONS_EVERY_S * NANOSECONDS:
                emit("conditions", **read_conditions())
                read = clock()
            if turn.threads > 1:
                time.sleep(_PAUSE_S)
    for turn in going:
        emit("stopped", subject=turn.name, why=turn.why(), interval_s=turn.interval)
    emit("conditions", **read_conditions())


def said(error: BaseException) -> str:
    """Return what ``error`` says, in one line of moderate length."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def _own(found: Found) -> list[float]:
    """Return the seconds of each run without those in which another program had the core."""
    if not found["away_s"]:
        return list(found["samples_s"])
    return [max(taken - away, 0.0) for taken, away in zip(found["samples_s"], found["away_s"])]


def _runs(turn: Turn, count: int, clock: Clock, origin_ns: int = 0) -> Found:
    """Return when each of ``count`` runs began and how long it took in seconds, and what the system did meanwhile.

    What the system does not say is an empty list. The garbage collector is off during the runs.
    """
    run, meter = turn.session.run, turn.meter
    starts, ends, taken = [0] * count, [0] * count, [(0, 0, 0)] * count
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index in range(count):
            meter.begin()
            starts[index] = clock()
            run()
            ends[index] = clock()
            taken[index] = meter.end(ends[index] - starts[index])
    finally:
        if collecting:
            gc.enable()
    away, minor, major = (list(column) for column in zip(*taken))
    return {
        "starts_s": [round((start - origin_ns) / NANOSECONDS, 6) for start in starts],
        "samples_s": [(end - start) / NANOSECONDS for start, end in zip(starts, ends)],
        "away_s": [one / NANOSECONDS for one in away] if meter.says_away else [],
        "minor_faults": minor if meter.says_faults else [],
        "major_faults": major if meter.says_faults else [],
    }
