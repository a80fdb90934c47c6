"""Which cores a measurement is pinned to."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

_CPU = Path("/sys/devices/system/cpu")
_STAT = Path("/proc/stat")
_LOOK_S = 0.2
# Cores count as equally idle within this share of a core.
_ALIKE = 0.25


def usable() -> list[int]:
    """Return the numbers of the cores that this process may use; an empty list where the system does not pin."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def count() -> int:
    """Return how many cores this process may use, at least 1; all of the machine where the system does not pin."""
    return len(usable()) or os.cpu_count() or 1


def chosen(wanted: str | Sequence[int] | None, threads: int) -> list[int]:
    """Return the cores to pin to: those that are ``wanted``, with "auto" as many as ``threads``; empty: none.

    Cores of their own come before second threads of a core, fast ones before slow ones, idle ones before busy ones,
    and then the last ones, since the first serves most interrupts. Raises OSError where a wanted core cannot be had.
    """
    cores = usable()
    if wanted is None or not cores:
        return []
    if not isinstance(wanted, str):
        missing = sorted(set(wanted) - set(cores))
        if missing:
            raise OSError(f"no core {missing[0]}: this process may use {cores}")
        return sorted(set(wanted))
    busy = _busy_shares()
    ranked = sorted(cores, key=lambda core: (*_rank(core), round(busy.get(core, 0.0) / _ALIKE), -core))
    return sorted(ranked[:threads])


def pin(cores: Sequence[int]) -> None:
    """Keep this process, and what it will start, on ``cores``; nothing where there are none."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _rank(core: int) -> tuple[int, int]:
    siblings = _numbers(_text(_CPU / f"cpu{core}" / "topology" / "thread_siblings_list"))
    capacity = _text(_CPU / f"cpu{core}" / "cpu_capacity")
    return (sorted(siblings).index(core) if core in siblings else 0), -int(capacity or 0)


def _busy_shares() -> dict[int, float]:
    before = _busy_ticks()
    if before is None:
        return {}
    time.sleep(_LOOK_S)
    after = _busy_ticks() or {}
    tick = 1 / os.sysconf("SC_CLK_TCK")
    return {core: (after[core] - ticks) * tick / _LOOK_S for core, ticks in before.items() if core in after}


def _busy_ticks() -> dict[int, int] | None:
    found = {}
    for line in _text(_STAT).splitlines():
        name, *ticks = line.split()
        if name.startswith("cpu") and name != "cpu":
            user, nice, system, _, _, irq, softirq, steal = (int(one) for one in ticks[:8])
            found[int(name[3:])] = user + nice + system + irq + softirq + steal
    return found or None


def _numbers(text: str) -> list[int]:
    """Return the numbers of a list such as ``0-1,4``."""
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
