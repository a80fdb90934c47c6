"""Stages in the order that their needs allow: what is up to date is left alone, the rest goes to the workers."""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from deploykit.errors import EXIT_FAILED, EXIT_PASS
from deploykit.stages.records import Outcome, Stage, StageKind, StageResult
from deploykit.stages.store import Store, Stored, digest_of, hashes_of
from deploykit.stages.tasks import Ended, Said, Task
from deploykit.stages.workers import Heard, Worker

_ORDER = tuple(StageKind)


class Listener(Protocol):
    """Who is told how it goes."""

    def started(self, stage: Stage, because: str) -> None:
        """Hear that ``stage`` has begun, and why it is done."""

    def said(self, stage: Stage, text: str) -> None:
        """Hear what ``stage`` is doing."""

    def ended(self, result: StageResult) -> None:
        """Hear what became of a stage."""


@dataclass
class Scheduler:
    """One run over ``stages``.

    ``inputs`` gives what decides a stage besides the artifacts that it takes, ``task`` makes a task of it with the
    results of the stages that it takes, ``hire`` starts a process. ``turn`` hears that all before a stage is over, and
    returns why it cannot be done, an empty text where it can.
    """

    stages: Sequence[Stage]
    store: Store
    inputs: Callable[[Stage], dict[str, str]]
    task: Callable[[Stage, Sequence[StageResult]], Task]
    hire: Callable[[queue.Queue[Heard]], Worker]
    listener: Listener
    jobs: int = 1
    fresh: bool = False
    turn: Callable[[Stage], str] = lambda stage: ""
    results: dict[str, StageResult] = field(default_factory=dict)
    _workers: list[Worker] = field(default_factory=list)
    _events: queue.Queue[Heard] = field(default_factory=queue.Queue)
    _ready: dict[str, str] = field(default_factory=dict)
    _because: dict[str, str] = field(default_factory=dict)
    _decided: dict[str, dict[str, str]] = field(default_factory=dict)

    def run(self) -> bool:
        """Do what there is to do; return whether it came to its end, and was not interrupted by Ctrl-C."""
        try:
            while True:
                self._settle()
                self._assign()
                if not self._busy():
                    return True
                self._hear(self._events.get())
        except KeyboardInterrupt:
            for worker in self._busy():
                assert worker.stage is not None
                self._over(worker.stage, Outcome.INTERRUPTED, reason="Ctrl-C")
            return False
        finally:
            for worker in self._workers:
                worker.stop()
            for worker in self._workers:
                worker.end()

    def _busy(self) -> list[Worker]:
        return [worker for worker in self._workers if worker.stage is not None]

    def _settle(self) -> None:
        """Find what became of every stage that nothing has to be done for, and what has to be done now."""
        under_way = {worker.stage.name for worker in self._busy() if worker.stage is not None}
        for stage in self.stages:
            if stage.name in self.results or stage.name in self._ready or stage.name in under_way:
                continue
            if stage.skip:
                self._over(stage, Outcome.SKIPPED, reason=stage.skip)
                continue
            if not all(name in self.results for name in (*stage.needs, *stage.after)):
                continue
            missing = [name for name in stage.needs if not self.results[name].outcome.passed]
            taken = self._taken(stage)
            if missing or (stage.takes and not taken):
                failed = missing or [name for name in stage.takes if not self.results[name].outcome.passed]
                self._over(stage, Outcome.NOT_RUN, reason=_why_not(self.results[failed[0]]))
                continue
            if hindrance := self.turn(stage):
                self._over(stage, Outcome.NOT_RUN, reason=hindrance)
                continue
            self._look_at(stage)

    def _look_at(self, stage: Stage) -> None:
        given = {name: self.results[name] for name in (*stage.takes, *stage.reads)}
        inputs = {**self.inputs(stage), **{name: _told(one) for name, one in given.items()}}
        stored = self.store.read(stage.name)
        if self.fresh:
            because = "asked for"
        elif stored is None:
            because = self.store.without_result(stage.name)
        else:
            because = self.store.stale(stored, inputs)
            if not because:
                self._over(stage, Outcome.UP_TO_DATE, stored=stored)
                return
        self._ready[stage.name], self._decided[stage.name] = because, inputs

    def _taken(self, stage: Stage) -> list[StageResult]:
        return [self.results[name] for name in stage.takes if self.results[name].outcome.passed]

    def _assign(self) -> None:
        """Give what is ready to processes that have nothing to do; what measures waits until all of them do."""
        while True:
            busy = self._busy()
            if any(worker.stage is not None and worker.stage.alone for worker in busy) or len(busy) >= self.jobs:
                return
            ready = [one for one in self.stages if one.name in self._ready]
            together = [one for one in ready if not one.alone]
            chosen = together or ([] if busy else ready)
            if not chosen:
                return
            idle = [worker for worker in self._workers if worker.stage is None]
            if not idle:
                idle = [self.hire(self._events)]
                self._workers += idle
            worker, stage = min(
                ((worker, stage) for worker in idle for stage in chosen), key=lambda pair: self._preference(*pair)
            )
            because = self._because[stage.name] = self._ready.pop(stage.name)
            self.listener.started(stage, because)
            worker.give(self.task(stage, self._taken(stage)))

    def _preference(self, worker: Worker, stage: Stage) -> tuple[object, ...]:
        """Return how well ``stage`` suits ``worker``, the smaller the better: it may know the network, the target.

        Then comes what the line has first, and of that what took longest the last time.
        """
        mine = worker.before
        others = {
            (one.recipe, one.target)
            for other in self._workers
            if other is not worker
            for one in (other.stage or other.before,)
            if one is not None
        }
        known = self.store.read(stage.name)
        return (
            mine is None or stage.recipe != mine.recipe,
            _ORDER.index(stage.kind),
            mine is None or stage.target != mine.target,
            (stage.recipe, stage.target) in others,
            0.0 if known is None else -known.cpu_seconds,
            self.stages.index(stage),
        )

    def _hear(self, heard: Heard) -> None:
        worker, event = heard.worker, heard.event
        stage = worker.stage
        if isinstance(event, Said):
            if stage is not None:
                self.listener.said(stage, event.text)
            return
        if not worker.alive and worker in self._workers:
            self._workers.remove(worker)
            worker.end()
        if stage is None:
            return
        worker.rest()
        self._conclude(stage, event)

    def _conclude(self, stage: Stage, event: Ended) -> None:
        """Keep what ``stage`` gave, or say why it gave nothing."""
        done, name = event.done, stage.name
        if done is not None and not (done.failed or done.skipped):
            outputs = hashes_of(done.outputs, self.store.root)
            stored = Stored(name, self._decided[name], outputs, event.seconds, event.cpu_seconds, done.note)
            self.store.write(stored)
            self._over(stage, Outcome.DONE, stored=stored)
            return
        over = partial(self._over, stage, seconds=event.seconds, cpu_seconds=event.cpu_seconds)
        if done is not None and not done.failed:
            self.store.discard(name)
            over(Outcome.SKIPPED, reason=done.skipped)
            return
        self.store.note_failure(name)
        if done is None:
            over(Outcome.FAILED, reason=event.error, exit_code=event.exit_code)
        else:
            over(Outcome.FAILED, reason=done.failed, details=done.details, exit_code=EXIT_FAILED)

    def _over(
        self,
        stage: Stage,
        outcome: Outcome,
        *,
        reason: str = "",
        details: tuple[str, ...] = (),
        stored: Stored | None = None,
        exit_code: int = EXIT_PASS,
        seconds: float = 0.0,
        cpu_seconds: float = 0.0,
    ) -> None:
        result = StageResult(
            stage=stage.name,
            kind=stage.kind,
            recipe=stage.recipe,
            target=stage.target,
            precision=stage.precision,
            outcome=outcome,
            reason=reason,
            details=details,
            because=self._because.get(stage.name, ""),
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            exit_code=exit_code,
        )
        if stored is not None:
            result = replace(
                result,
                reason=stored.note,
                seconds=stored.seconds,
                cpu_seconds=stored.cpu_seconds,
                outputs=stored.outputs,
            )
        self.results[stage.name] = result
        self.listener.ended(result)


def _told(given: StageResult) -> str:
    """Return what a stage that is given ``given`` is decided by."""
    return digest_of(given.outputs) if given.outcome.passed else f"{given.outcome}: {given.reason}"


def _why_not(failed: StageResult) -> str:
    """Return why a stage was not run that needs ``failed``: the first cause, through those in between."""
    if failed.outcome is Outcome.NOT_RUN:
        return failed.reason
    return f"{failed.stage} {'was skipped' if failed.outcome is Outcome.SKIPPED else 'failed'}"


def in_order(stages: Sequence[Stage], results: Mapping[str, StageResult]) -> tuple[StageResult, ...]:
    """Return the results in the order of ``stages``; those of an interrupted run that were not reached as such."""
    return tuple(
        results.get(one.name)
        or StageResult(
            one.name, one.kind, one.recipe, one.target, one.precision, Outcome.INTERRUPTED, reason="not reached"
        )
        for one in stages
    )
