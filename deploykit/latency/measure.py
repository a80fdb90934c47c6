"""How something is measured: how long, how exactly, on which cores."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from deploykit.errors import UsageError
from deploykit.latency_records import Latency, Stopped

MIN_RUNS = 50
MIN_SECONDS = 1.0
MAX_SECONDS = 10.0
PRECISION_TARGET = 0.02
AUTOMATIC = "auto"
_NOT_LIMITS = ("startup", "profile", "affinity")


@dataclass(frozen=True)
class Protocol:
    """What is done to each subject; times are sums of its own runs.

    Warm-up: at least so many runs and seconds (half a second is what LiteRT's benchmark_model takes), until the medians
    of three windows of runs in a row are within ``warmup_change`` of each other, at most ``max_warmup_seconds``. Then
    at least ``min_runs`` and ``min_seconds``, and on until the 95 % interval of the median reaches no further than
    ``precision_target``, a share of the median, to either side (None: not asked for). ``max_seconds`` wins over all of
    it, after a handful of runs; the warm-up takes no longer either.
    ``affinity``: the cores to pin to, "auto" for idle ones, as many as threads, or None. ``startup`` measures loading
    and the first inference in processes of their own as well, ``startup_runs`` of them for each subject, but no more
    once they took ``startup_seconds``; ``profile`` the time of each operation.
    """

    min_runs: int = MIN_RUNS
    min_seconds: float = MIN_SECONDS
    max_seconds: float = MAX_SECONDS
    precision_target: float | None = PRECISION_TARGET
    warmup_runs: int = 3
    warmup_seconds: float = 0.5
    max_warmup_seconds: float = 3.0
    warmup_change: float = 0.03
    block_seconds: float = 0.05
    startup_runs: int = 3
    startup_seconds: float = 2.0
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


def told_of_time(latency: Latency, protocol: Protocol) -> Latency:
    """Return ``latency`` with a note where its time was up before it had the runs and seconds of ``protocol``."""
    runs, seconds = len(latency.samples_s), sum(latency.samples_s)
    if latency.stopped is not Stopped.TIME or latency.summaries:
        return latency
    if runs >= protocol.min_runs and seconds >= protocol.min_seconds:
        return latency
    least = f"at least {protocol.min_runs} runs and {protocol.min_seconds:g} s were asked for"
    note = f"time was up after {runs} run{'' if runs == 1 else 's'} of {seconds:.2g} s together, and {least}: "
    return replace(latency, notes=(*latency.notes, note + "give it more with --max-seconds"))


def check_plan(
    threads: int,
    min_runs: int,
    min_seconds: float,
    max_seconds: float = MAX_SECONDS,
    precision_target: float | None = None,
) -> None:
    """Raise UsageError unless threads, runs, seconds and the reach of the interval are in range."""
    rows = (
        ("--threads", threads, threads >= 1, "at least 1"),
        ("--runs", min_runs, min_runs >= 1, "at least 1"),
        ("--seconds", min_seconds, math.isfinite(min_seconds) and min_seconds >= 0, "0 or more"),
        ("--max-seconds", max_seconds, math.isfinite(max_seconds) and max_seconds >= 0, "0 or more"),
        (
            "--precision-target",
            precision_target,
            precision_target is None or 0 < precision_target < 1,
            "more than 0 % and less than 100 %, or none",
        ),
    )
    for option, found, good, expected in rows:
        if not good:
            raise UsageError(f"{option} is out of range.", found=str(found), expected=expected)
