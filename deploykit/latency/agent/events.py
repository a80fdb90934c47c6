"""Events on stdout: one JSON object in a line, flushed, whatever the runtimes print."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

NANOSECONDS = 1_000_000_000
Emit = Callable[..., None]


class Stream:
    """The stream of events; ``origin_ns`` is the start of the agent's clock."""

    def __init__(self, origin_ns: int | None = None) -> None:
        # What runtimes print on stdout, from C++ too, goes to stderr: stdout is for events alone.
        self._stream: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        self.origin_ns = time.perf_counter_ns() if origin_ns is None else origin_ns

    def emit(self, event: str, **body: Any) -> None:
        """Write one event."""
        self._stream.write(json.dumps({"event": event, **body}, allow_nan=False, separators=(",", ":")) + "\n")
        self._stream.flush()

    def descriptor(self) -> int:
        """Return the file descriptor, for a child to write to."""
        return self._stream.fileno()

    def now_s(self) -> float:
        """Return the seconds since the origin."""
        return round((time.perf_counter_ns() - self.origin_ns) / NANOSECONDS, 6)
