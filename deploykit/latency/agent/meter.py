"""What the system did during one run: how long another program had the core, and how often memory was missing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

# Away in nanoseconds, minor and major page faults.
Taken = tuple[int, int, int]


class Meter:
    """Asked before and after a run, outside its time.

    ``says_away`` is whether the system tells when it took the core away: Linux does, for one thread. With several the
    one that asks waits for the others, which is no fault of anybody else; then, and elsewhere, ``away`` is always 0.
    ``says_faults`` is whether it counts page faults of this process.
    """

    def __init__(self, threads: int) -> None:
        resource = _resource()
        alone = threads == 1 and sys.platform == "linux" and resource is not None
        self.says_away = alone
        self.says_faults = resource is not None
        self._usage: Callable[[], Any] | None = None
        if resource is not None:
            who = resource.RUSAGE_THREAD if alone else resource.RUSAGE_SELF
            self._usage = lambda: resource.getrusage(who)
        self._before: Any = None
        self._computed = 0

    def begin(self) -> None:
        """Remember the counters: the run begins."""
        if self._usage is not None:
            self._before = self._usage()
            self._computed = time.process_time_ns()

    def end(self, taken_ns: int) -> Taken:
        """Return what happened during the run that ended just now and took ``taken_ns``."""
        if self._usage is None:
            return 0, 0, 0
        before, after = self._before, self._usage()
        away = 0
        if self.says_away and after.ru_nivcsw > before.ru_nivcsw:
            # What other threads of this process did meanwhile, a library's own pool for one, was no other program.
            away = max(0, taken_ns - (time.process_time_ns() - self._computed))
        return away, after.ru_minflt - before.ru_minflt, after.ru_majflt - before.ru_majflt


def _resource() -> Any:
    try:
        import resource
    except ImportError:
        return None
    return resource
