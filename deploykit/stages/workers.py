"""The processes that do stages, as the pipeline sees them: started, given tasks, heard, ended."""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import EXIT_BUG
from deploykit.stages.records import Stage
from deploykit.stages.tasks import Ended, Said, Task

_END_S = 5.0
# More threads would sum in another order, and the same inputs give other bytes with another number of jobs.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PROGRAM = """
import sys
sys.path[:] = {path!r}
from deploykit.stages.worker import main
main({parent})
"""


@contextlib.contextmanager
def _surviving_broken_pipes() -> Iterator[None]:
    """Let a write to a process that is gone be an OSError; the command line lets SIGPIPE end it, for ``| head``."""
    if not hasattr(signal, "SIGPIPE") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGPIPE, before)


@dataclass(frozen=True)
class Heard:
    """One event of one worker."""

    worker: Worker
    event: Said | Ended


class Worker:
    """A process of its own that does one stage after the other; what it says goes into ``events``."""

    def __init__(self, work: Path, events: queue.Queue[Heard], *, verbose: bool) -> None:
        self.stage: Stage | None = None
        self.before: Stage | None = None
        self._events = events
        handle, name = tempfile.mkstemp(prefix="worker-", suffix=".log", dir=work / "tmp")
        self._log = Path(name)
        environment = {
            **os.environ,
            **dict.fromkeys(_THREADS, "1"),
            "PYTHONHASHSEED": "0",
            "TMPDIR": str(work / "tmp"),
        }
        program = _PROGRAM.format(path=sys.path, parent=os.getpid())
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=None if verbose else handle,
            env=environment,
            start_new_session=True,
        )
        os.close(handle)
        self._reader = threading.Thread(target=self._hear, daemon=True)
        self._reader.start()

    def give(self, task: Task) -> None:
        """Let the process do ``task``; its end is heard in any case."""
        self.stage = task.stage
        assert self._process.stdin is not None
        # A process that is gone is heard of by its reader.
        with _surviving_broken_pipes(), contextlib.suppress(OSError):
            pickle.dump(task, self._process.stdin)
            self._process.stdin.flush()

    def rest(self) -> None:
        """Note that the stage is over."""
        self.before, self.stage = self.stage, None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Ask the process to end, and to put away what it has begun."""
        if self.alive:
            self._process.terminate()

    def end(self) -> None:
        """End the process, with time to put away what it has begun."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if not self.alive:
                break
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)
        self._reader.join(_END_S)
        for stream in (self._process.stdin, self._process.stdout):
            # What could not be handed over any more cannot be flushed either.
            with _surviving_broken_pipes(), contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                event = pickle.load(self._process.stdout)
            except (EOFError, OSError, pickle.UnpicklingError, ValueError):
                break
            self._events.put(Heard(self, event))
        self._process.wait()
        self._events.put(Heard(self, Ended(None, 0.0, 0.0, self._last_words(), EXIT_BUG)))

    def _last_words(self) -> str:
        code = self._process.returncode
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        hint = "; perhaps there was too little memory" if code == -signal.SIGKILL else ""
        said = ""
        with contextlib.suppress(OSError):
            said = self._log.read_text("utf-8", errors="replace").strip()
        return f"its process ended by itself, with {how}{hint}" + (f"\n{said[-2000:]}" if said else "")
