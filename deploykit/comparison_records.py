"""Frozen records of one comparison of two things by latency: samples, intervals, verdict (standard library only).

Ratios are those of B to A: 1.05 says that one inference of B takes 5 % more time.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from enum import StrEnum

from deploykit.latency_records import Conditions, Machine, Warned


class Verdict(StrEnum):
    """What a comparison says of B, relative to A."""

    FASTER = "faster"
    SLOWER = "slower"
    SAME = "no difference above the margin"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True)
class Round:
    """One round: sessions of A (0), B (1) and of A once more (2, the control) made anew in ``order``, then blocks.

    ``samples_s`` holds seconds of one inference as [block][triple][contender], each the mean of ``repeats``, and
    ``away_s`` how much of each the system gave the core to another process; ``starts_s`` says when each block began, on
    one clock for the whole comparison; ``setup_s`` is what making and warming the sessions took.
    """

    order: tuple[int, ...]
    setup_s: float
    starts_s: tuple[float, ...]
    samples_s: tuple[tuple[tuple[float, ...], ...], ...] = field(repr=False)
    away_s: tuple[tuple[tuple[float, ...], ...], ...] = field(default=(), repr=False)
    repeats: int = 1


@dataclass(frozen=True)
class Estimate:
    """A ratio of times with its interval, at the level at which it was judged."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Judgement:
    """What the samples say. All ratios are those of B to A, those of ``control`` of A to A.

    ``noise_floor``: how far from 1 the control's interval reaches, as a part of 1 (0.01: one per cent). ``threshold``:
    what the whole interval has to be beyond, the greater of margin and noise floor. ``smallest_effect``: the smallest
    difference that would have been found with this noise four times out of five. ``level`` is the confidence of the
    interval of ``effect``, that of ``control`` has 95 %. None where there were too few rounds to say anything.
    """

    verdict: Verdict
    reason: str
    margin: float
    rounds: int
    level: float | None = None
    effect: Estimate | None = None
    control: Estimate | None = None
    noise_floor: float | None = None
    threshold: float | None = None
    smallest_effect: float | None = None


@dataclass(frozen=True)
class Side:
    """One of the two: what it is and what was measured of it.

    ``median_s`` is without what other processes took; ``instructions`` are those of one inference.
    """

    name: str
    runtime: str
    median_s: float | None
    content_hash: str | None = None
    figures: dict[str, int | None] = field(default_factory=dict)
    instructions: int | None = None


@dataclass(frozen=True)
class LatencyComparison:
    """One comparison of B with A, in rounds of sessions made anew, on the same cores, one run at a time.

    ``affinity`` are the cores that both ran on, empty where the system cannot pin. ``preempted`` is the part of the
    samples during which another process got the core. ``complete`` is False where the user ended it before a verdict or
    the time was up.
    """

    first: Side
    second: Side
    judgement: Judgement
    threads: int
    affinity: tuple[int, ...]
    seed: int
    seconds: float
    max_seconds: float
    preempted: float = 0.0
    rounds: tuple[Round, ...] = field(default=(), repr=False)
    device: str = ""
    machine: Machine | None = None
    conditions: tuple[Conditions, ...] = ()
    warnings: tuple[Warned, ...] = ()
    notes: tuple[str, ...] = ()
    started: str = ""
    complete: bool = True


def median_of(rounds: tuple[Round, ...], contender: int) -> float | None:
    """Return the median of the seconds of one inference of ``contender``, without what others took; None for none."""
    found = []
    for one in rounds:
        taken = [row[contender] for block in one.samples_s for row in block]
        away = [row[contender] for block in one.away_s for row in block] or [0.0] * len(taken)
        found += [own - other for own, other in zip(taken, away, strict=True)]
    return statistics.median(found) if found else None
