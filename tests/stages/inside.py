"""Stages done inside the test's process: the same work, without the seconds that a process of its own starts with."""

from __future__ import annotations

import queue
from pathlib import Path

from deploykit.errors import EXIT_PASS, DeploykitError
from deploykit.stages.records import Stage
from deploykit.stages.tasks import Done, Ended, Task
from deploykit.stages.work import Workbench, do
from deploykit.stages.workers import Heard


class Inside:
    """Stands in the place of ``deploykit.stages.workers.Worker``."""

    alive = True

    def __init__(self, work: Path, events: queue.Queue[Heard], *, verbose: bool) -> None:
        self.stage: Stage | None = None
        self.before: Stage | None = None
        self._events = events
        self._workbench = Workbench()

    def give(self, task: Task) -> None:
        self.stage = task.stage
        done: Done | None = None
        error, code = "", EXIT_PASS
        try:
            done = do(task, self._workbench, lambda text: None)
        except DeploykitError as raised:
            error, code = raised.render(), raised.exit_code
        self._events.put(Heard(self, Ended(done, 0.1, 0.1, error, code)))

    def rest(self) -> None:
        self.before, self.stage = self.stage, None

    def stop(self) -> None:
        pass

    def end(self) -> None:
        pass
