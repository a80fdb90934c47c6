"""Axes of charts: where a value stands, and which round numbers stand beside the line."""

from __future__ import annotations

import math
from dataclasses import dataclass

_STEPS = (1, 2, 5, 10)


@dataclass(frozen=True)
class Tick:
    """A round number at ``place``, in units of the drawing."""

    place: float
    text: str


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` on a line from ``start`` to ``end``; ``logarithmic`` for positive ones."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where ``value`` is; beyond the ends it is on them."""
        inside = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = math.log(inside / self.low) / math.log(self.high / self.low)
        else:
            share = (inside - self.low) / (self.high - self.low)
        return round(self.start + (self.end - self.start) * share, 1)

    def ticks(self) -> tuple[Tick, ...]:
        """Return three to about eight round numbers on the axis."""
        values = _decades(self.low, self.high) if self.logarithmic else []
        if len(values) < 3:
            values = _round_values(self.low, self.high)
        return tuple(Tick(self.place(value), f"{value:.10g}") for value in values)


def around(values: list[float], *, share: float = 0.08, logarithmic: bool = False) -> tuple[float, float]:
    """Return ends of an axis that leave room beside ``values``, of which there is at least one."""
    low, high = min(values), max(values)
    if logarithmic:
        room = max((high / low) ** share, 1.15)
        return low / room, high * room
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def _round_values(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * one for one in _STEPS if power * one >= rough)
    first = math.ceil(low / step - 1e-9)
    return [round(step * index, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [step * 10.0**power for power in powers for step in _STEPS[:3] if low <= step * 10.0**power <= high]
