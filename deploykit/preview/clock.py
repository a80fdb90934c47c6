"""How long each stage takes, on the clock and in processor time of the thread that does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploykit.preview.records import Stage

# In the order in which a frame goes through them.
STAGES = ("decode", "preprocessing", "inference", "mask", "post-processing", "composite", "flicker", "encode")


class Clock:
    """Sums by stage. A stage belongs to one thread; different ones may run at the same time."""

    def __init__(self) -> None:
        self._wall = dict.fromkeys(STAGES, 0.0)
        self._cpu = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Count what happens inside for ``stage``."""
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            yield
        finally:
            self._wall[stage] += time.perf_counter() - wall
            self._cpu[stage] += time.thread_time() - cpu

    def stages(self, frames: int) -> tuple[Stage, ...]:
        """Return the mean over ``frames`` of every stage that took any time."""
        count = max(frames, 1)
        return tuple(
            Stage(name, self._wall[name] / count, self._cpu[name] / count) for name in STAGES if self._wall[name]
        )
