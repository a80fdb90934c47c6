"""What preflight found: one row for each thing worth knowing about a network and a target."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deploykit.records import SkippedTarget
from deploykit.vocab import Precision, Target


class Verdict(StrEnum):
    """What a target makes of a construct, best first; only ``REFUSED`` stops an export."""

    OK = "ok"
    REWRITTEN = "rewritten"
    ADVISORY = "advisory"
    MANY = "many operations"
    REFUSED = "refused"


@dataclass(frozen=True)
class Finding:
    """One construct in ``places`` calls, made by ``modules``: the ``reason`` for its verdict, and what is ``done``.

    ``source`` says where the reason can be looked up: an address, a document, or the converter that was asked.
    """

    construct: str
    verdict: Verdict
    modules: tuple[str, ...]
    places: int
    reason: str
    done: str
    source: str


@dataclass(frozen=True)
class TargetFindings:
    """What one target makes of the network at one precision; ``operations`` are those of the lowered graph."""

    target: Target
    precision: Precision
    converter: str
    operations: int
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()

    @property
    def refused(self) -> bool:
        """Whether an export would be refused."""
        return any(one.verdict is Verdict.REFUSED for one in self.findings)

    def count(self, verdict: Verdict) -> int:
        """Return how many operations have ``verdict``."""
        return sum(one.places for one in self.findings if one.verdict is verdict)


@dataclass(frozen=True)
class Preflight:
    """What ``export`` would meet on its way, for each target that was asked for; ``simplified`` is done for all."""

    recipe: str
    checkpoint_sha256: str
    simplified: tuple[Finding, ...]
    targets: tuple[TargetFindings, ...]
    skipped: tuple[SkippedTarget, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether no target refuses the network."""
        return not any(one.refused for one in self.targets)
