"""Frozen records of a gate: budgets, what was measured, findings and their verdicts (standard library only).

Units are in the names of measures, SI inside. A point is a hundredth: one point of mIoU is 0.01.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from deploykit.vocab import Precision, Target


class Measure(StrEnum):
    """What a budget may bound."""

    BYTES = "bytes"
    """Of the file or package."""
    COMPRESSED_BYTES = "compressed_bytes"
    """Of the download: every file of it deflated, in one ZIP archive."""
    OPERATIONS = "operations"
    """In the file."""
    TRANSPOSES = "transposes"
    """Operations that only move values."""
    MACS = "macs"
    """Multiply-accumulates of one inference."""
    PEAK_MEMORY = "peak_memory_bytes"
    """Resident memory at its highest, above the process before the file was opened."""
    LOAD = "load_s"
    """Seconds until the file is open in a process that has opened it before."""
    LATENCY = "latency_s"
    """Median seconds of one inference; its growth is that beside the baseline's file in the same run."""
    MIOU_LOST = "miou_points_lost"
    """Points of the mean IoU of portrait and background that the checkpoint has and the file has not."""
    BOUNDARY_F1_LOST = "boundary_f1_points_lost"
    """Points of boundary F1, likewise."""
    FLICKER_ADDED = "flicker_points_added"
    """Points of temporal flicker that the file has beyond the checkpoint."""
    NEURAL_ENGINE = "neural_engine_advice"
    """Operations of a Core ML file that are known to leave the Neural Engine. Without a budget this is advice."""


# What is counted in a file and the same on every machine: growth against the baseline's figures means something.
COUNTED = (Measure.BYTES, Measure.COMPRESSED_BYTES, Measure.OPERATIONS, Measure.TRANSPOSES, Measure.MACS)
# What depends on the machine: one limit for all of them would say nothing.
TIMES = (Measure.LOAD, Measure.LATENCY)
MEASURED_BY_BENCH = (Measure.PEAK_MEMORY, *TIMES)
MASKS = (Measure.MIOU_LOST, Measure.BOUNDARY_F1_LOST, Measure.FLICKER_ADDED)
UNITS: Mapping[Measure, str] = {
    Measure.BYTES: "bytes",
    Measure.COMPRESSED_BYTES: "bytes",
    Measure.OPERATIONS: "operations",
    Measure.TRANSPOSES: "transposes",
    Measure.MACS: "multiply-accumulates",
    Measure.PEAK_MEMORY: "bytes",
    Measure.LOAD: "s",
    Measure.LATENCY: "s",
    Measure.MIOU_LOST: "points",
    Measure.BOUNDARY_F1_LOST: "points",
    Measure.FLICKER_ADDED: "points",
    Measure.NEURAL_ENGINE: "operations",
}


class GateVerdict(StrEnum):
    """What one rule says of one artifact; skipped and inconclusive always carry a reason."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    SKIPPED = "skipped"


class Inconclusive(StrEnum):
    """What becomes of a comparison that noise left open."""

    RETRY = "retry"
    """It is measured once more for twice the time; what is still open is a warning."""
    WARN = "warn"
    """It is a warning."""
    FAIL = "fail"
    """It fails the gate."""


@dataclass(frozen=True)
class Budget:
    """One bound with its ``reason``; empty selectors take every artifact.

    ``limit`` is the most that is allowed, in the unit of ``measure``; ``max_growth`` the most beyond the baseline, as a
    part of it (0.02: two per cent). ``devices`` are the names of the machines that the limit is for. ``source`` says
    where the budget is written.
    """

    measure: Measure
    reason: str
    limit: float | None = None
    max_growth: float | None = None
    targets: tuple[Target, ...] = ()
    precisions: tuple[Precision, ...] = ()
    recipes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Subject:
    """One artifact under the name that it keeps from change to change: what it is, not what its plan hashes to.

    ``path`` is as commands take it.
    """

    name: str
    recipe: str
    target: Target
    precision: Precision
    content_hash: str
    path: str


@dataclass(frozen=True)
class Measurement:
    """One figure, None with the ``reason`` where there is none; ``interval`` where it is uncertain.

    ``device`` names the machine where the figure depends on it. ``reason`` beside a figure is its
    source.
    """

    value: float | None
    reason: str = ""
    interval: tuple[float, float] | None = None
    device: str = ""


@dataclass(frozen=True)
class Agreement:
    """How far one output of a file may be, and is, from the checkpoint's; ``bound`` names the tolerance.

    ``at_least``: the limit is the smallest value allowed, not the largest.
    """

    output: str
    bound: str
    measured: float
    limit: float
    reason: str
    at_least: bool = False


@dataclass(frozen=True)
class LatencyTrial:
    """What came of measuring an artifact beside its baseline's file, with one error rate for all of a run.

    ``ratio`` is that of the artifact's time to the baseline's, with its interval at ``level``. Both were measured
    ``measured_times`` times.
    """

    verdict: GateVerdict
    reason: str
    ratio: float | None = None
    interval: tuple[float, float] | None = None
    level: float | None = None
    measured_times: int = 0
    baseline_path: str = ""


@dataclass(frozen=True)
class Observed:
    """All that is known of one artifact when the rules are applied.

    ``changed`` names files that are not those of the manifest: then nothing else was measured. ``agreements`` None: the
    file was not verified, for the reason ``unverified``. ``broken`` are findings of the verification beyond bounds.
    ``trials`` are those of growth in latency, by ``max_growth``. ``recorded`` are latencies on other machines than this
    one, from saved runs.
    """

    subject: Subject
    changed: tuple[str, ...] = ()
    figures: Mapping[Measure, Measurement] = field(default_factory=dict)
    agreements: tuple[Agreement, ...] | None = None
    unverified: str = ""
    broken: tuple[str, ...] = ()
    trials: Mapping[float, LatencyTrial] = field(default_factory=dict)
    recorded: tuple[Measurement, ...] = ()
    advice: tuple[str, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """What one rule says of one artifact: ``measured`` against ``limit`` in ``unit``, and by how much beyond it.

    ``excess`` is positive where the limit is exceeded and negative where there is room left. ``command`` measures the
    same again. ``fails``: the finding fails the gate under the policy of the run. ``advice`` never does.
    """

    rule: str
    subject: str
    verdict: GateVerdict
    reason: str
    measured: float | None = None
    limit: float | None = None
    unit: str = ""
    excess: float | None = None
    command: str = ""
    advice: bool = False
    fails: bool = False


@dataclass(frozen=True)
class GateReport:
    """All findings of one run under its policy. ``passed``: none of them fails the gate.

    ``baseline`` is the file they were held against, None for none. ``subjects`` are the artifacts that were judged.
    """

    passed: bool
    findings: tuple[Finding, ...]
    strict: bool
    inconclusive: Inconclusive
    baseline: str | None = None
    notes: tuple[str, ...] = ()
    subjects: tuple[Subject, ...] = ()

    def count(self, verdict: GateVerdict) -> int:
        """Return how many findings have ``verdict``."""
        return sum(one.verdict is verdict for one in self.findings)
