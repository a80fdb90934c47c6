"""What samples of latency say: percentiles, spread, two humps, and runs that fall out of line, and why.

An outlier is flagged and kept. A reason is something that was counted during the run itself, or where only the machine
counts it, in the stretch between two readings around the run; it has to be large enough for half of what the run took
beyond the median.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.latency.agent.median import interval_of_median
from deploykit.latency_records import Conditions, Latency

__all__ = ["Hump", "Outlier", "Summary", "explain_outliers", "interval_of_median", "summarise", "two_humps"]

# Severe outliers, as John W. Tukey draws the outer fences: so far beyond the quartiles, in distances between them.
FENCE = 3.0
PERCENTILES = (50, 90, 95, 99)
UNEXPLAINED = "not known"
# A cause counts where it is good for this part of what a run took beyond the median.
_EXPLAINS = 0.5
# What one event may cost at most, in seconds: a page from a busy disk, a page of memory, a turn of another program, the
# rest of a period in which the share of a container is used up.
_MAJOR_FAULT_S, _MINOR_FAULT_S, _TURN_S, _QUOTA_S = 0.01, 2e-6, 0.004, 0.1
# A throttled processor, and one whose memory and caches others use, is so many times slower at most.
_THROTTLED, _CROWDED = 4.0, 2.0
_HOTTER_C = 5.0
_BUSY_CORES = 0.5
# Two humps: each holds a part of the runs, they lie apart by a part of the lower one, and little is in the middle half
# of the way between them.
_HUMP_SHARE, _HUMP_APART, _HUMP_VALLEY = 0.1, 0.1, 0.1
_HUMP_ASIDE = 0.02
_LEAST_RUNS_OF_HUMPS = 40


@dataclass(frozen=True)
class Outlier:
    """One run out of line: its place among the samples, its time, and why, ``UNEXPLAINED`` where nothing shows."""

    index: int
    seconds: float
    reason: str


@dataclass(frozen=True)
class Hump:
    """A part of the runs that lies apart from the rest: the middle of it, and its share of all runs."""

    median_s: float
    share: float


@dataclass(frozen=True)
class Summary:
    """The figures of one latency, all without the time in which another program had the core.

    ``mad_s`` is the median absolute deviation from the median, unscaled. ``percentiles_s`` is percent → seconds.
    ``precision`` is how far the interval of the median reaches, as a share of the median; None where there is no
    interval. ``humps`` are the two around which the runs lie, empty where they lie around one.
    """

    runs: int
    median_s: float
    mad_s: float
    percentiles_s: dict[int, float]
    fps: float
    precision: float | None
    outliers: tuple[Outlier, ...]
    humps: tuple[Hump, ...] = ()

    def reasons(self) -> dict[str, int]:
        """Return reason → number of outliers, the most frequent first."""
        counts: dict[str, int] = {}
        for one in self.outliers:
            counts[one.reason] = counts.get(one.reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def summarise(latency: Latency, conditions: Sequence[Conditions] = ()) -> Summary:
    """Return the figures of ``latency``; its outliers are explained by the ``conditions`` of its run."""
    samples = np.asarray(latency.own_s)
    median = latency.median_s
    precision = None
    if latency.interval_s is not None and median > 0:
        low, high = latency.interval_s
        precision = max(high - median, median - low, 0.0) / median
    return Summary(
        runs=len(samples),
        median_s=median,
        mad_s=float(np.median(np.abs(samples - median))),
        # One rule for the middle: of an even number of runs it lies between two.
        percentiles_s={percent: latency.percentile_s(percent) for percent in PERCENTILES} | {50: median},
        fps=1 / median if median > 0 else 0.0,
        precision=precision,
        outliers=explain_outliers(latency, conditions),
        humps=two_humps(latency.own_s),
    )


def two_humps(samples_s: Sequence[float]) -> tuple[Hump, ...]:
    """Return the two humps around which ``samples_s`` lie, the lower first; nothing where they lie around one.

    The runs are parted where the spread of logarithms within the two parts is least (Otsu 1979), the slowest few left
    aside.
    """
    ordered = np.sort(np.asarray(samples_s, dtype=np.float64))
    count = len(ordered)
    if count < _LEAST_RUNS_OF_HUMPS:
        return ()
    logs = np.log(np.maximum(ordered[: round((1 - _HUMP_ASIDE) * count)], 1e-12))
    sums, lower = np.cumsum(logs), np.arange(1, len(logs))
    apart = (sums[-1] - sums[:-1]) / (len(logs) - lower) - sums[:-1] / lower
    place = 1 + int(np.argmax(lower * (len(logs) - lower) * apart**2))
    parts = (ordered[:place], ordered[place:])
    low, high = (float(np.median(part)) for part in parts)
    least = min(map(len, parts))
    quarter = (high - low) / 4
    between = int(np.count_nonzero((ordered > low + quarter) & (ordered < high - quarter)))
    if least < _HUMP_SHARE * count or high - low < _HUMP_APART * low or between > _HUMP_VALLEY * least:
        return ()
    return Hump(low, len(parts[0]) / count), Hump(high, len(parts[1]) / count)


def explain_outliers(latency: Latency, conditions: Sequence[Conditions] = ()) -> tuple[Outlier, ...]:
    """Return the severe outliers among the runs of ``latency``, slow and fast, in the order of time.

    Why a run was fast is not known; of a slow one without ``starts_s``, on the clock of ``conditions``, only what was
    counted during the run itself.
    """
    own = latency.own_s
    places = _out_of_line(own)
    if not places:
        return ()
    median, by_run, stretches = statistics.median(own), _ByRun(latency), _Stretches(conditions)
    found = []
    for place in places:
        slow = _Slow(own[place], median)
        reason = ""
        if slow.beyond_s > 0:
            reason = by_run.reason(place, slow)
            if not reason and len(latency.starts_s) == len(own):
                start = latency.starts_s[place]
                reason = stretches.reason(start, start + latency.samples_s[place], slow, latency)
        found.append(Outlier(place, own[place], reason or UNEXPLAINED))
    return tuple(found)


@dataclass(frozen=True)
class _Slow:
    """A run beside the median of its measurement."""

    seconds: float
    median_s: float

    @property
    def beyond_s(self) -> float:
        return self.seconds - self.median_s

    def explained_by(self, seconds: float) -> bool:
        return seconds >= _EXPLAINS * self.beyond_s

    def times(self) -> float:
        return self.seconds / max(self.median_s, 1e-12)


_DISK = "pages were read from the disk (major page faults)"
_MEMORY = "memory was mapped (minor page faults)"


class _ByRun:
    """What was counted during each run by itself."""

    def __init__(self, latency: Latency) -> None:
        runs = len(latency.samples_s)
        faults = ((_DISK, latency.major_faults, _MAJOR_FAULT_S), (_MEMORY, latency.minor_faults, _MINOR_FAULT_S))
        self._faults = [
            (text, counts, statistics.median(counts), cost_s) for text, counts, cost_s in faults if len(counts) == runs
        ]
        self._away_s = latency.away_s if len(latency.away_s) == runs else (0.0,) * runs

    def reason(self, place: int, slow: _Slow) -> str:
        """Return what was beyond the usual in the run at ``place``; an empty text for nothing that is large enough."""
        for text, counts, usual, cost_s in self._faults:
            more = counts[place] - usual
            if more > 0 and slow.explained_by(more * cost_s):
                return text
        away_s = self._away_s[place]
        if away_s > 0 and slow.explained_by(away_s):
            return "another program had the core in between, and the caches (preempted)"
        return ""


def _out_of_line(samples_s: Sequence[float]) -> list[int]:
    samples = np.asarray(samples_s)
    if not len(samples):
        return []
    low, high = np.percentile(samples, [25, 75])
    width = FENCE * (high - low)
    return [int(place) for place in np.flatnonzero((samples < low - width) | (samples > high + width))]


# What a counter of the machine that rose says, and the seconds that one count of it may be good for, the surest first.
_COUNTERS: tuple[tuple[str, str, float, Callable[[Conditions], float | None]], ...] = (
    ("the hypervisor took the core away (steal time)", "", 1.0, lambda one: one.steal_s),
    ("the container's share of the processor was used up", "", _QUOTA_S, lambda one: one.quota_throttled),
    (_DISK, "major_faults", _MAJOR_FAULT_S, lambda one: one.major_faults),
    ("another program took the core (preempted)", "away_s", _TURN_S, lambda one: one.preempted),
    (_MEMORY, "minor_faults", _MINOR_FAULT_S, lambda one: one.minor_faults),
)


class _Stretches:
    """The stretches between readings of the conditions, and what happened in each."""

    def __init__(self, conditions: Sequence[Conditions]) -> None:
        self._readings = sorted(conditions, key=lambda one: one.time_s)
        self._times = [one.time_s for one in self._readings]
        frequencies = [one.frequency_hz for one in self._readings if one.frequency_hz]
        self._frequency = statistics.median(frequencies) if frequencies else None
        temperatures = [one.temperature_c for one in self._readings if one.temperature_c is not None]
        self._temperature = statistics.median(temperatures) if temperatures else None
        loads = [one.other_load for one in self._readings if one.other_load is not None]
        self._load = statistics.median(loads) if loads else 0.0

    def reason(self, start_s: float, end_s: float, slow: _Slow, latency: Latency) -> str:
        """Return what made a run slow; an empty text for nothing that is large enough, or where nothing was read.

        What the samples of ``latency`` say by run is not looked for here.
        """
        first = bisect.bisect_right(self._times, start_s) - 1
        last = bisect.bisect_left(self._times, end_s)
        if first < 0 or last >= len(self._readings):
            return ""
        before, after = self._readings[first], self._readings[last]
        for text, by_run, cost_s, read in _COUNTERS:
            more = _rise(read(before), read(after))
            if more > 0 and slow.explained_by(more * cost_s) and not (by_run and getattr(latency, by_run)):
                return text
        if _rise(before.throttled, after.throttled) > 0 and slow.times() <= _THROTTLED:
            return "the processor was throttled for heat"
        if self._frequency and after.frequency_hz and after.frequency_hz < self._frequency:
            slower_s = slow.median_s * (self._frequency / after.frequency_hz - 1)
            if slow.explained_by(slower_s):
                return "the processor's frequency was lower"
        if slow.times() > _CROWDED:
            return ""
        if self._temperature is not None and (after.temperature_c or 0.0) > self._temperature + _HOTTER_C:
            return "the processor was hotter"
        if after.other_load is not None and after.other_load > self._load + _BUSY_CORES:
            return "other programs were busy"
        return ""


def _rise(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else after - before
