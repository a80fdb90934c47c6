"""Which precision each target can be given, as data: an impossible cell has its reason and the nearest possible one."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.vocab import Precision, Target


@dataclass(frozen=True)
class Scheme:
    """What a precision means in the files of one target; ``needs_os`` is the oldest system that takes it."""

    meaning: str
    needs_os: str | None = None


@dataclass(frozen=True)
class Impossible:
    """Why a target has no files of a precision, and the precision that comes nearest."""

    reason: str
    nearest: Precision
