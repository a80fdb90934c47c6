"""What samples of latency say: percentiles, spread, and runs that fall out of line, with the reason where it is known.

An outlier is flagged and kept. The machine's conditions are read between blocks of runs, so a reason is one that holds
for the stretch of time around the run: it was counted there, and more than is usual in this same measurement.
"""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.latency.agent.median import interval_of_median
from deploykit.latency_records import Conditions, Latency

__all__ = ["Outlier", "Summary", "explain_outliers", "interval_of_median", "summarise"]

# Severe outliers, as John W. Tukey draws the outer fences: so far beyond the quartiles, in distances between them.
FENCE = 3.0
PERCENTILES = (50, 90, 95, 99)
UNEXPLAINED = "not known"
# A counter that rose this many times as fast as usual is out of line.
_OUT_OF_LINE = 3.0
_SLOWER = 0.95
_HOTTER_C = 5.0
_BUSY_CORES = 0.5


@dataclass(frozen=True)
class Outlier:
    """One run out of line: its place among the samples, its time, and why, ``UNEXPLAINED`` where nothing shows."""

    index: int
    seconds: float
    reason: str


@dataclass(frozen=True)
class Summary:
    """The figures of one latency. ``mad_s`` is the median absolute deviation from the median, unscaled.

    ``percentiles_s`` is percent → seconds. ``precision`` is how far the interval of the median reaches, as a share
    of the median; None where there is no interval.
    """

    runs: int
    median_s: float
    mad_s: float
    percentiles_s: dict[int, float]
    fps: float
    precision: float | None
    outliers: tuple[Outlier, ...]

    def reasons(self) -> dict[str, int]:
        """Return reason → number of outliers, the most frequent first."""
        counts: dict[str, int] = {}
        for one in self.outliers:
            counts[one.reason] = counts.get(one.reason, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: -item[1]))


def summarise(latency: Latency, conditions: Sequence[Conditions] = ()) -> Summary:
    """Return the figures of ``latency``; its outliers are explained by the ``conditions`` of its run."""
    samples = np.asarray(latency.samples_s)
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
        outliers=explain_outliers(latency.samples_s, latency.starts_s, conditions),
    )


def explain_outliers(
    samples_s: Sequence[float], starts_s: Sequence[float] = (), conditions: Sequence[Conditions] = ()
) -> tuple[Outlier, ...]:
    """Return the severe outliers among ``samples_s``, slow and fast, in the order of time.

    Without ``starts_s``, on the clock of ``conditions``, none is explained.
    """
    places = _out_of_line(samples_s)
    stretches = _Stretches(conditions)
    found = []
    for place in places:
        reason = UNEXPLAINED
        if len(starts_s) == len(samples_s):
            reason = stretches.reason(starts_s[place], starts_s[place] + samples_s[place]) or UNEXPLAINED
        found.append(Outlier(place, samples_s[place], reason))
    return tuple(found)


def _out_of_line(samples_s: Sequence[float]) -> list[int]:
    samples = np.asarray(samples_s)
    if not len(samples):
        return []
    low, high = np.percentile(samples, [25, 75])
    width = FENCE * (high - low)
    return [int(place) for place in np.flatnonzero((samples < low - width) | (samples > high + width))]


# What a counter that rose says, the surest cause first.
_COUNTERS: tuple[tuple[str, str, Callable[[Conditions], float | None]], ...] = (
    ("the hypervisor took the core away (steal time)", "steal_s", lambda one: one.steal_s),
    ("the container's share of the processor was used up", "quota_throttled", lambda one: one.quota_throttled),
    ("the processor was throttled for heat", "throttled", lambda one: one.throttled),
    ("pages were read from the disk (major page faults)", "major_faults", lambda one: one.major_faults),
    ("another program took the core (preempted)", "preempted", lambda one: one.preempted),
    ("memory was mapped (minor page faults)", "minor_faults", lambda one: one.minor_faults),
)


class _Stretches:
    """The stretches between readings of the conditions, and what was unusual in each."""

    def __init__(self, conditions: Sequence[Conditions]) -> None:
        self._readings = sorted(conditions, key=lambda one: one.time_s)
        self._times = [one.time_s for one in self._readings]
        pairs = list(zip(self._readings, self._readings[1:], strict=False))
        self._usual = {
            name: statistics.median([0.0, *(rate for pair in pairs if (rate := _rate(*pair, read)) is not None)])
            for _, name, read in _COUNTERS
        }
        frequencies = [one.frequency_hz for one in self._readings if one.frequency_hz]
        self._frequency = statistics.median(frequencies) if frequencies else None
        temperatures = [one.temperature_c for one in self._readings if one.temperature_c is not None]
        self._temperature = statistics.median(temperatures) if temperatures else None
        loads = [one.other_load for one in self._readings if one.other_load is not None]
        self._load = statistics.median(loads) if loads else 0.0

    def reason(self, start_s: float, end_s: float) -> str:
        """Return what was unusual while a run went on; an empty text for nothing, or where nothing was read."""
        first = bisect.bisect_right(self._times, start_s) - 1
        last = bisect.bisect_left(self._times, end_s)
        if first < 0 or last >= len(self._readings):
            return ""
        before, after = self._readings[first], self._readings[last]
        for text, name, read in _COUNTERS:
            rate = _rate(before, after, read)
            if rate is not None and rate > _OUT_OF_LINE * self._usual[name]:
                return text
        if self._frequency and after.frequency_hz and after.frequency_hz < _SLOWER * self._frequency:
            return "the processor's frequency was lower"
        if self._temperature is not None and (after.temperature_c or 0.0) > self._temperature + _HOTTER_C:
            return "the processor was hotter"
        if after.other_load is not None and after.other_load > self._load + _BUSY_CORES:
            return "other programs were busy"
        return ""


def _rate(before: Conditions, after: Conditions, read: Callable[[Conditions], float | None]) -> float | None:
    """Return how fast a counter rose per second, or None where it is not known."""
    first, last, seconds = read(before), read(after), after.time_s - before.time_s
    return None if first is None or last is None or seconds <= 0 else (last - first) / seconds
