"""Frozen records of a report: its verdict with reasons, what it was made from, and what it left out and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from deploykit.evaluation.records import Evaluation
from deploykit.gate_records import Finding
from deploykit.latency_records import Latency, Machine, Warned
from deploykit.records import Artifact, Verification
from deploykit.verification.records import ArtifactVerification

# Above this ratio of the 90th percentile to the median a time says little.
NOISY = 2.0


class Standing(StrEnum):
    """What a report says of its artifacts; open is everything that was not judged, and is never a pass."""

    PASS = "pass"
    OPEN = "open"
    FAIL = "fail"


class Left(StrEnum):
    """Why something in the folder is not part of the figures."""

    STALE = "stale"
    """It was measured on another file than the one that is there now."""
    UNREADABLE = "unreadable"
    """It is damaged, or of another version."""
    CHANGED = "changed"
    """It is not what the pipeline wrote there."""
    FOREIGN = "foreign"
    """It is no record of deploykit."""
    UNUSED = "not shown"
    """It is a record that the report has no place for."""


@dataclass(frozen=True)
class LeftOut:
    """Something in the folder that the figures do not stand on; ``path`` is relative to the folder."""

    path: str
    why: Left
    reason: str


@dataclass(frozen=True)
class Reason:
    """One thing that keeps the verdict from a pass; ``command`` mends it where one can."""

    standing: Standing
    text: str
    command: str = ""


@dataclass(frozen=True)
class Entry:
    """An artifact as it lies in the folder.

    ``changed`` names files that are not those of its manifest, ``missing`` those of them that are gone, ``broken`` the
    manifest's fields that its seal finds changed. ``seal`` is the manifest's own digest, empty without one.
    ``certificate`` says in words what its certificate of folding and merging holds, and ``certificate_faults`` what is
    wrong with it.
    """

    artifact: Artifact
    manifest: Path
    seal: str
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    certificate: str = ""
    certificate_faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Damaged:
    """A manifest that cannot be read; ``path`` is relative to the folder."""

    path: str
    reason: str


@dataclass(frozen=True)
class Record:
    """A versioned record in the folder, ``body`` as the dataclass of its ``kind``.

    ``sealed``: its bytes are those that the pipeline wrote.
    """

    path: str
    kind: str
    body: Any = field(repr=False)
    sealed: bool = False


@dataclass(frozen=True)
class Collection:
    """What a folder holds."""

    folder: Path
    entries: tuple[Entry, ...]
    damaged: tuple[Damaged, ...]
    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class Timed:
    """One latency with the run that it was measured in, and the record that holds it.

    ``cores_busy``: how many cores other programs kept busy meanwhile; None for none worth a warning.
    """

    latency: Latency
    machine: Machine | None
    started: str
    source: str
    cores_busy: float | None = None

    @property
    def noise(self) -> str:
        """Why the figure is uncertain; an empty text where nothing says so."""
        found = []
        spread = self.latency.p90_s / self.latency.median_s if self.latency.median_s > 0 else 0.0
        if spread > NOISY:
            found.append(f"the 90th percentile is {spread:.1f} times the median")
        if self.cores_busy is not None:
            found.append(f"other programs kept {self.cores_busy:.1f} cores busy")
        return " and ".join(found)


@dataclass(frozen=True)
class Scored:
    """One evaluation with the data that it was made on, and the record that holds it."""

    evaluation: Evaluation
    data: str
    source: str


@dataclass(frozen=True)
class Unmeasured:
    """Something that was to be measured there and was skipped, with the reason and the record that says so."""

    name: str
    reason: str
    source: str


@dataclass(frozen=True)
class Dossier:
    """One artifact under its ``name`` in the report, with every record of its content hash, the best one first.

    ``gated``: a gate of this very file is among the records, whose findings on it are ``findings``.
    """

    name: str
    entry: Entry
    latencies: tuple[Timed, ...] = ()
    scores: tuple[Scored, ...] = ()
    verifications: tuple[ArtifactVerification, ...] = ()
    findings: tuple[Finding, ...] = ()
    gated: bool = False

    @property
    def artifact(self) -> Artifact:
        """What the manifest says."""
        return self.entry.artifact


@dataclass(frozen=True)
class Network:
    """One network with its artifacts; ``verification`` is that of folding and merging of this checkpoint."""

    recipe: str
    checkpoint_sha256: str
    dossiers: tuple[Dossier, ...]
    verification: Verification | None = None
    scores: tuple[Scored, ...] = ()
    eager: tuple[Timed, ...] = ()


@dataclass(frozen=True)
class Matched:
    """The folder's records beside the artifacts that they are of."""

    networks: tuple[Network, ...]
    damaged: tuple[Damaged, ...]
    unmeasured: tuple[Unmeasured, ...]
    warnings: tuple[Warned, ...]
    records: tuple[Record, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def dossiers(self) -> tuple[Dossier, ...]:
        """Every artifact, network by network."""
        return tuple(one for network in self.networks for one in network.dossiers)

    def of_kind(self, kind: str) -> tuple[Record, ...]:
        """Return the records of ``kind`` that are of artifacts here, in order of path."""
        return tuple(one for one in self.records if one.kind == kind)


@dataclass(frozen=True)
class Verdict:
    """The verdict in one ``sentence``, and the reasons, failures first.

    ``notes`` name what this machine cannot measure: no reason against a pass, whose sentence has them as well.
    """

    standing: Standing
    sentence: str
    reasons: tuple[Reason, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReportSummary:
    """What was written where, and what it says. ``pictures`` counts the images in the page."""

    standing: Standing
    sentence: str
    reasons: tuple[Reason, ...]
    artifacts: int
    records: int
    left_out: tuple[LeftOut, ...]
    pictures: int
    path: Path
    size_bytes: int
    markdown: Path | None = None
    notes: tuple[str, ...] = ()
