"""Frozen records of measured latency: the machine, its state, raw samples, and what was left out and why.

Units are in the names of the fields, SI inside. Only the standard library is needed.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from enum import StrEnum

from deploykit.vocab import Precision, Target

# Of what other programs take of a run, less than this part of it is not worth a word.
AWAY_COUNTS = 0.005
# Where more of the runs were broken into than this part, it is said.
PREEMPTED = 0.05


class Stopped(StrEnum):
    """Why a measurement ended."""

    PRECISION = "precision reached"
    RUNS = "runs done"
    TIME = "time is up"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Machine:
    """What a machine is, in words that name neither its host nor its user. None: the system does not say.

    ``name`` is its key among saved results: lower case, digits and dashes.
    """

    name: str
    processor: str
    architecture: str
    system: str
    cores: int
    physical_cores: int | None = None
    memory_bytes: int | None = None
    virtual: bool | None = None
    governor: str | None = None
    turbo: bool | None = None


@dataclass(frozen=True)
class Conditions:
    """The state of a machine at one moment; counters (steal, throttling, page faults) count since it started.

    ``time_s`` is on the clock of the samples' ``starts_s``. ``other_load``: how many cores were busy with other work
    since the moment before. ``throttled`` counts for heat, ``quota_throttled`` for the share of a container;
    ``preempted`` counts how often the measuring process was taken off its core, faults are its own as well.
    """

    time_s: float
    load_average: float | None = None
    other_load: float | None = None
    steal_s: float | None = None
    frequency_hz: float | None = None
    temperature_c: float | None = None
    throttled: int | None = None
    thermal_state: str | None = None
    battery_percent: float | None = None
    on_battery: bool | None = None
    major_faults: int | None = None
    minor_faults: int | None = None
    quota_throttled: int | None = None
    preempted: int | None = None


@dataclass(frozen=True)
class Warned:
    """Something about the machine that makes times worse or less certain, and what the user can do about it."""

    problem: str
    remedy: str


@dataclass(frozen=True)
class Startup:
    """What it takes until the first mask, measured in processes of their own. None: not measured by this driver.

    Each figure is the median of ``starts`` processes; ``starts_s`` has what each of them took, by name of the figure.
    ``process_s``: from the start of the process until it can open a file. ``cold_load_s``: opening the file with its
    pages out of the system's cache (``cold_cache`` says whether that could be had); ``warm_load_s``: opening it again.
    ``peak_memory_bytes``: resident memory at its highest, above the process before the file was opened.
    """

    process_s: float | None = None
    cold_load_s: float | None = None
    cold_cache: bool = False
    warm_load_s: float | None = None
    first_inference_s: float | None = None
    peak_memory_bytes: int | None = None
    starts: int = 1
    starts_s: dict[str, tuple[float, ...]] = field(default_factory=dict, repr=False)

    def reach(self, figure: str) -> float | None:
        """Return how far the times of ``figure`` reach from their median, as a part of it; None for a single one."""
        times = self.starts_s.get(figure, ())
        middle = statistics.median(times) if len(times) > 1 else 0.0
        return max(max(times) - middle, middle - min(times)) / middle if middle > 0 else None


@dataclass(frozen=True)
class OperationTime:
    """The mean time of one operation of a file in one inference, and the PyTorch modules that it computes.

    ``values`` and ``reads`` name the tensors that it makes and, constants left out, takes, where the runtime says so.
    """

    name: str
    operation: str
    seconds: float
    modules: tuple[str, ...] = ()
    accelerator: str = ""
    values: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunSummary:
    """What a tool that prints no single runs says of the ``runs`` of one session. None: it does not print that."""

    runs: int
    mean_s: float
    min_s: float
    max_s: float
    std_s: float
    first_s: float
    last_s: float
    median_s: float | None = None
    p5_s: float | None = None
    p95_s: float | None = None

    @property
    def center_s(self) -> float:
        """The median where the tool prints it, else the mean."""
        return self.mean_s if self.median_s is None else self.median_s


@dataclass(frozen=True)
class Latency:
    """Times of single runs on one device. The raw samples are kept; statistics derive from them.

    ``starts_s``: when each sample began, on one clock for all that was interleaved; ``sessions``: which session of the
    runtime gave it. Both are empty where the driver does not say. ``steps``: mean seconds of what an end-to-end run
    consists of (preprocessing, inference, mask, composite). ``warm`` says whether the running median was steady when
    the warm-up ended; None: the driver does not say. ``notes``: what was asked for and could not be measured, and why.
    ``summaries``: one for each sample where the tool prints no single runs; a sample is then the middle of a whole
    session, and the percentiles are those of sessions. ``away_s``: how much of each sample another program had the
    core; every figure is without it. ``minor_faults`` and ``major_faults`` are those of each run. All three are empty
    where the system does not say.
    """

    artifact: str
    device: str
    driver: str
    accelerator: str
    threads: int
    warmup_runs: int
    samples_s: tuple[float, ...] = field(repr=False)
    size_bytes: int | None = None
    runtime: str = ""
    target: Target | None = None
    precision: Precision | None = None
    content_hash: str | None = None
    starts_s: tuple[float, ...] = field(default=(), repr=False)
    sessions: tuple[int, ...] = field(default=(), repr=False)
    affinity: tuple[int, ...] = ()
    stopped: Stopped | None = None
    interval_s: tuple[float, float] | None = None
    startup: Startup | None = None
    steps: dict[str, float] = field(default_factory=dict)
    operations: tuple[OperationTime, ...] = field(default=(), repr=False)
    network: str | None = None
    warm: bool | None = None
    notes: tuple[str, ...] = ()
    summaries: tuple[RunSummary, ...] = field(default=(), repr=False)
    away_s: tuple[float, ...] = field(default=(), repr=False)
    minor_faults: tuple[int, ...] = field(default=(), repr=False)
    major_faults: tuple[int, ...] = field(default=(), repr=False)

    @property
    def own_s(self) -> tuple[float, ...]:
        """The samples without the time in which another program had the core."""
        if len(self.away_s) != len(self.samples_s):
            return self.samples_s
        return tuple(max(taken - away, 0.0) for taken, away in zip(self.samples_s, self.away_s, strict=True))

    @property
    def preempted(self) -> float | None:
        """The part of the runs during which another program got the core for a time that counts; None: not known."""
        if len(self.away_s) != len(self.samples_s):
            return None
        pairs = zip(self.samples_s, self.away_s, strict=True)
        return sum(away > AWAY_COUNTS * taken for taken, away in pairs) / max(len(self.samples_s), 1)

    @property
    def median_s(self) -> float:
        """The median time of one run, in seconds."""
        return statistics.median(self.own_s)

    @property
    def p90_s(self) -> float:
        """The 90th percentile (nearest rank) of the time of one run, in seconds."""
        return self.percentile_s(90)

    def percentile_s(self, percent: float) -> float:
        """Return the ``percent`` percentile (nearest rank) of the time of one run, in seconds."""
        ordered = sorted(self.own_s)
        return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True)
class SkippedLatency:
    """Something that was to be measured and was not, with the reason.

    ``elsewhere``: nothing went wrong; files of its format are never timed on that machine.
    """

    artifact: str
    reason: str
    elsewhere: bool = False


@dataclass(frozen=True)
class Benchmark:
    """What one interleaved run measured, in the order asked for, and what it left out.

    ``complete`` is False where the run ended early (a lost device, a full disk, Ctrl-C) and this is what there was
    until then; ``ended`` says why. ``started`` is the date and time in UTC, ISO 8601.
    """

    measured: tuple[Latency, ...]
    skipped: tuple[SkippedLatency, ...] = ()
    machine: Machine | None = None
    conditions: tuple[Conditions, ...] = ()
    warnings: tuple[Warned, ...] = ()
    started: str = ""
    complete: bool = True
    ended: str = ""
