"""What ``deploykit pipeline`` leaves in its folder: its record of a run, and the hashes of what each stage wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from deploykit.records import RECORD_VERSION

_RESULTS = Path(".pipeline") / "results"
_LARGEST = 2**24


class State(StrEnum):
    """What became of a stage."""

    DONE = "done"
    UP_TO_DATE = "up to date"
    SKIPPED = "skipped"
    FAILED = "failed"
    NOT_RUN = "not run"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Step:
    """One stage of a run; empty ``recipe``: it is of all of them. ``reason`` says why it did not pass."""

    stage: str
    kind: str
    outcome: State
    recipe: str = ""
    target: str | None = None
    precision: str | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """What it did, in words, without its recipe."""
        return " ".join(part for part in (self.kind, self.target, self.precision) if part)

    @property
    def why(self) -> str:
        """The first line of ``reason``."""
        return next(iter(self.reason.strip().splitlines()), "")


@dataclass(frozen=True)
class Run:
    """A run of the pipeline, as its record has it."""

    stages: tuple[Step, ...]


def written_hashes(folder: Path) -> dict[str, str]:
    """Return path → SHA-256 of every file that the pipeline's stages wrote into ``folder``; nothing without one.

    They find mistakes and edits by hand; whoever changes them as well is not found: nothing is signed.
    """
    found: dict[str, str] = {}
    for path in sorted((folder / _RESULTS).rglob("*.json")):
        try:
            if path.stat().st_size <= _LARGEST:
                found |= _outputs(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue
    return found


def _outputs(record: Any) -> dict[str, str]:
    if (record["kind"], record["deploykit"]) != ("pipeline-stage", RECORD_VERSION):
        return {}
    return {str(one["path"]): str(one["sha256"]) for one in record["body"]["outputs"]}
