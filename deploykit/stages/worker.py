"""The program of a process that does stages: tasks come on stdin, events go to stdout, one pickle after the other.

It ends with the process that started it, however that ends: its stdin is closed then, and on Linux the system kills it.
It has a session of its own, so that Ctrl-C reaches the pipeline alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from typing import IO

from deploykit.errors import EXIT_BUG, EXIT_USER, DeploykitError
from deploykit.stages.tasks import Done, Ended, Said, Task

_PR_SET_PDEATHSIG = 1
_ORPHANED = 3


def main(parent: int) -> None:
    """Do the stages that come on stdin from the process ``parent`` until there are no more."""
    _end_with(parent)
    tasks: queue.Queue[Task | None] = queue.Queue()
    source = os.fdopen(os.dup(0), "rb")
    events = os.fdopen(os.dup(1), "wb")
    # What converters print must not get among the events.
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_listen, args=(source, tasks), daemon=True).start()
    from deploykit.stages.work import Workbench, do

    workbench = Workbench()

    def send(event: Said | Ended) -> None:
        pickle.dump(event, events)
        events.flush()

    while (task := tasks.get()) is not None:
        started, before = time.monotonic(), _cpu_seconds()
        done: Done | None = None
        error, code = "", 0
        try:
            done = do(task, workbench, lambda text: send(Said(text)))
        except DeploykitError as raised:
            error, code = raised.render(), raised.exit_code
            if task.verbose:
                error += "\n" + traceback.format_exc()
        except Exception as raised:
            full = isinstance(raised, OSError) and raised.errno == errno.ENOSPC
            error = f"No space is left where the output goes: {raised}" if full else traceback.format_exc()
            code = EXIT_USER if full else EXIT_BUG
        send(Ended(done, time.monotonic() - started, _cpu_seconds() - before, error, code))


def _listen(source: IO[bytes], tasks: queue.Queue[Task | None]) -> None:
    """Hand over tasks as they come; None among them ends the work, the end of the stream this process."""
    while True:
        try:
            task = pickle.load(source)
        except (EOFError, OSError):
            # The pipeline is gone: nothing of the stage under way is in place yet, and nothing must be any more.
            os._exit(_ORPHANED)
        tasks.put(task)
        if task is None:
            return


def _end_with(parent: int) -> None:
    """Let the system kill this process as soon as ``parent`` has ended, however it does."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_ORPHANED)


def _cpu_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
