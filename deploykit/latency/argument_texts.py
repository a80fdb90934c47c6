"""Options as people write them: numbers of threads and of cores, shares."""

from __future__ import annotations

import re

from deploykit.errors import UsageError

_MOST = 1024


def parse_threads(text: str) -> tuple[int, ...]:
    """Return the numbers in a text such as ``1``, ``1,2`` or ``1-4``, in order, each once. Raises UsageError."""
    found: list[int] = []
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        first, last = (int(bounds[1]), int(bounds[2] or bounds[1])) if bounds else (0, 0)
        if not 1 <= first <= last <= _MOST:
            raise UsageError(
                "--threads is out of range.",
                found=text,
                expected=f"a number of at least 1, several as in 1,2,4, or a range as in 1-4; at most {_MOST}",
            )
        found.extend(range(first, last + 1))
    return tuple(dict.fromkeys(found))


def parse_cores(text: str) -> str | tuple[int, ...] | None:
    """Return the cores in a text such as ``0,2`` or ``0-3``; ``auto`` stays, ``none`` is None. Raises UsageError."""
    if text.strip().lower() in ("auto", "none"):
        return "auto" if text.strip().lower() == "auto" else None
    found: list[int] = []
    for part in text.split(","):
        bounds = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", part)
        if bounds is None or int(bounds[2] or bounds[1]) < int(bounds[1]):
            raise UsageError(
                "--affinity is not understood.", found=text, expected="auto, none, or numbers of cores as in 0,2 or 0-3"
            )
        found.extend(range(int(bounds[1]), int(bounds[2] or bounds[1]) + 1))
    return tuple(dict.fromkeys(found))


def parse_share(text: str) -> float | None:
    """Return the share in a text such as ``2%`` or ``0.02``; ``none`` is None. Raises UsageError."""
    plain = text.strip().lower()
    if plain == "none":
        return None
    try:
        value = float(plain[:-1]) / 100 if plain.endswith("%") else float(plain)
    except ValueError:
        raise UsageError(
            "--precision-target is not understood.", found=text, expected="a share such as 2% or 0.02, or none"
        ) from None
    return value
