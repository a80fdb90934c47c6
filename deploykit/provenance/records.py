"""What became of checking a manifest, as frozen records (standard library only)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Skipped says that something needed for the check was not at hand; it neither passes nor fails."""

    PASS = "pass"
    FAIL = "FAIL"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Link:
    """One link of the chain: ``detail`` says what was checked or why not, ``findings`` name what is not as recorded."""

    name: str
    verdict: Verdict
    detail: str
    findings: tuple[str, ...] = ()


@dataclass(frozen=True)
class ManifestCheck:
    """The links of one manifest's chain, in order."""

    artifact: str
    manifest_sha256: str
    links: tuple[Link, ...]

    @property
    def passed(self) -> bool:
        """Whether no link failed; one that was skipped says so in its verdict."""
        return all(link.verdict is not Verdict.FAIL for link in self.links)
