"""Benchmarks that pages report, kept event by event, so that an interrupted one has what it measured until then."""

from __future__ import annotations

import json
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from deploykit.latency.agent.machine import key_of
from deploykit.latency.agent.median import interval_of_median
from deploykit.latency.machine import cpu_model, device_name, warnings_about
from deploykit.latency.recording import INTERRUPTED, Recording
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark, Latency, Machine, SkippedLatency, Stopped, Warned
from deploykit.web import events
from deploykit.web.plan import PagePlan

DRIVER = "browser"
MOST_RUNS = 100
MOST_SAMPLES = 1_000_000
# Resampling rounds to whole levels, and a page may round some the other way.
MOST_LEVELS = 1.5
# Below so many runs, or so little of a change, a drift says nothing.
_LEAST_RUNS = 30
_DRIFT = 0.05
_SLOWED = "let the device cool, end what else it does, and measure again"
_QUICKENED = "it was not at its pace yet: end what else the device does, and measure again or for longer"
_GIB = 1 << 30
# How browsers call the systems that Python names.
_SYSTEMS = {"Linux": "linux", "Darwin": "mac", "Windows": "windows"}

Key = tuple[str, str, int]


class RefusedError(Exception):
    """A batch of events that is not kept, and why."""


@dataclass
class BrowserRun:
    """One benchmark on one page; ``here``: its requests came from this very machine."""

    plan: PagePlan
    precision_target: float | None
    here: bool = False
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    over: bool = False
    _recording: Recording = field(default_factory=Recording)
    _facts: events.Facts | None = None
    _opened: dict[Key, events.Opened] = field(default_factory=dict)
    _checked: dict[Key, events.Checked] = field(default_factory=dict)
    _warm: dict[Key, events.Warm] = field(default_factory=dict)
    _samples: int = 0

    def __post_init__(self) -> None:
        self._recording.end_early(INTERRUPTED)
        subjects, about = [one.name for one in self.plan.subjects], self.plan.body
        self._keys = [(name, ran, n) for n in about["threads"] for ran in about["accelerators"] for name in subjects]

    def hear(self, batch: events.Batch) -> None:
        """Keep the events of ``batch``, all or none.

        Raises RefusedError where one is of a file that was not asked for, is not its turn, or there are too many.
        """
        if self.over:
            raise RefusedError("the run has ended")
        ready = {*self._warm, *(one.key() for one in batch.events if isinstance(one, events.Warm))}
        passed = {key for key, one in self._checked.items() if one.agreement >= self.required}
        for one in batch.events:
            if isinstance(one, events.OfSubject) and one.key() not in self._keys:
                raise RefusedError("no such file, accelerator or number of threads was asked for")
            if isinstance(one, events.Checked) and one.agreement >= self.required:
                passed.add(one.key())
            if isinstance(one, events.Samples | events.Stopped) and not (one.key() in ready and one.key() in passed):
                raise RefusedError("samples of a file that was not checked and warmed up")
        count = sum(len(one.samples_s) for one in batch.events if isinstance(one, events.Samples))
        if self._samples + count > MOST_SAMPLES:
            raise RefusedError(f"more than {MOST_SAMPLES} samples")
        self._samples += count
        for one in batch.events:
            self._keep(one)

    @property
    def doing(self) -> str:
        """What the page did last, for people who wait."""
        return "measuring in the browser" if self._warm else "opening and checking the files in the browser"

    @property
    def samples(self) -> int:
        """How many samples there are so far."""
        return self._samples

    def end_early(self, why: str) -> None:
        """Say that nothing more comes, and why."""
        self._recording.end_early(why)
        self.over = True

    @property
    def required(self) -> float:
        """The share of pixels that has to agree."""
        return float(self.plan.body["required_agreement"])

    def _keep(self, one: events.Event) -> None:
        match one:
            case events.Hello():
                self._facts = one.facts
                self._recording = Recording(offset_s=-one.time_s)
                self._recording.end_early(INTERRUPTED)
            case events.Opened():
                self._opened[one.key()] = one
                self._tell("started", one, seconds=one.process_s)
                self._tell("opened", one, cold=True, seconds=one.cold_load_s, cold_cache=False)
                self._tell("first", one, seconds=one.first_inference_s)
                self._tell("opened", one, cold=False, seconds=one.warm_load_s)
            case events.Checked():
                self._checked[one.key()] = one
            case events.Warm():
                self._warm[one.key()] = one
                opened = self._opened.get(one.key())
                runtime = opened.runtime if opened else ""
                self._tell("warm", one, runtime=runtime, runs=one.runs, seconds=one.seconds, stable=one.stable)
            case events.Samples():
                self._tell("samples", one, starts_s=one.starts_s, samples_s=one.samples_s, session=0, block=0, steps={})
            case events.Stopped():
                why, interval = self._judged(one)
                self._tell("stopped", one, why=why, interval_s=interval)
            case events.Problem():
                self._tell("problem", one, phase=one.phase, message=one.message)
            case events.Conditions():
                self._recording.hear(one.model_dump_json())
            case events.End():
                self._recording.hear(one.model_dump_json())
                self.over = True

    def _tell(self, event: str, about: events.OfSubject, **values: Any) -> None:
        self._recording.hear(json.dumps({"event": event, "subject": _name(about.key()), **values}))

    def _judged(self, about: events.OfSubject) -> tuple[Stopped, tuple[float, float]]:
        """Return why the measurement stopped and the interval, both from the samples and not from the page's word."""
        blocks = self._recording.of(_name(about.key())).blocks
        if not blocks:
            return Stopped.INTERRUPTED, (0.0, 0.0)
        low, high = interval_of_median(blocks)
        if self.precision_target is None:
            return Stopped.RUNS, (low, high)
        middle = statistics.median(run for block in blocks for run in block)
        precise = max(high - middle, middle - low) <= self.precision_target * middle
        return Stopped.PRECISION if precise else Stopped.TIME, (low, high)

    def benchmark(self) -> Benchmark:
        """Return what was measured so far as a record."""
        machine = self._machine()
        found = [(key, self._latency(key, machine)) for key in self._keys]
        measured = tuple(latency for _, latency in found if latency is not None)
        left_out = tuple(SkippedLatency(_words(key), self._why_not(key)) for key, latency in found if latency is None)
        threads = max(self.plan.body["threads"])
        warnings = warnings_about(machine, self._recording.conditions, threads)
        return Benchmark(
            measured=measured,
            skipped=(*self.plan.skipped, *left_out),
            machine=machine,
            conditions=tuple(self._recording.conditions),
            warnings=(*warnings, *_drifts(measured)),
            started=self.started,
            complete=self._recording.complete,
            ended=self._recording.ended,
        )

    def _latency(self, key: Key, machine: Machine) -> Latency | None:
        name, accelerator, threads = key
        subject = next(one for one in self.plan.subjects if one.name == name)
        opened = self._opened.get(key)
        found = self._recording.latency(
            _name(key),
            device=device_name(machine),
            driver=DRIVER,
            accelerator=opened.ran if opened else accelerator,
            threads=threads,
            **_about(subject),
        )
        return None if found is None else replace(found, artifact=name, notes=(*found.notes, *self._notes(key)))

    def _notes(self, key: Key) -> list[str]:
        opened, checked, warm = self._opened.get(key), self._checked.get(key), self._warm.get(key)
        notes = list(opened.notes) if opened else []
        if opened and opened.ran != opened.accelerator:
            notes.append(f"{opened.accelerator} was asked for, and {opened.ran} computed")
        if checked and checked.levels > MOST_LEVELS:
            notes.append(
                f"the page prepares the picture otherwise than the host: {checked.levels:.1f} of 256 levels apart, "
                f"and {checked.own_agreement:.2%} of the mask agrees then"
            )
        if warm and warm.repeats > 1:
            notes.append(
                f"a sample is the mean of {warm.repeats} inferences in a row: "
                f"the clock of the browser steps by {warm.granularity_s * 1e6:.0f} µs"
            )
        return notes

    def _why_not(self, key: Key) -> str:
        problems = self._recording.of(_name(key)).problems
        return next(iter(problems.values()), "") or f"not measured: {self._recording.ended or 'the page left it out'}"

    def _machine(self) -> Machine:
        facts = self._facts
        if facts is None:
            return Machine(name="browser", processor="a browser", architecture="unknown", system="unknown", cores=1)
        # A phone may come through a cable, from the same address.
        here = self.here and facts.system.lower().startswith(_SYSTEMS.get(platform.system(), "unknown"))
        processor = cpu_model() if here else facts.model or "a processor that the browser does not name"
        memory = None if facts.memory_gb is None else int(facts.memory_gb * _GIB)
        return Machine(
            name=key_of(processor if here else facts.model or facts.system, facts.cores, facts.browser),
            processor=processor,
            architecture=facts.architecture,
            system=f"{facts.system} in {facts.browser}",
            cores=facts.cores,
            memory_bytes=memory,
        )


class Runs:
    """All benchmarks of one server. ``changed`` is called after each batch of a run."""

    def __init__(self, plan: PagePlan, precision_target: float | None) -> None:
        self._plan = plan
        self._precision_target = precision_target
        self._runs: dict[str, BrowserRun] = {}
        self.changed: Callable[[BrowserRun], None] = lambda run: None

    def begin(self, *, here: bool = False) -> str:
        """Return the name of a new run, ``here`` as in ``BrowserRun``. Raises RefusedError where there are too many."""
        if len(self._runs) >= MOST_RUNS:
            raise RefusedError(
                f"{MOST_RUNS} benchmarks were begun, and one start of deploykit web takes no more; "
                "end it, which prints them, and start it again"
            )
        name = str(len(self._runs))
        self._runs[name] = BrowserRun(self._plan, self._precision_target, here)
        return name

    def hear(self, name: str, batch: events.Batch) -> None:
        """Keep ``batch`` of the run ``name``. Raises RefusedError where there is none such, or it does not fit."""
        run = self._runs.get(name)
        if run is None:
            raise RefusedError("no such run")
        run.hear(batch)
        self.changed(run)

    def all(self) -> Sequence[BrowserRun]:
        """Return the runs in the order of their beginnings."""
        return tuple(self._runs.values())


def _name(key: Key) -> str:
    return json.dumps(key)


def _words(key: Key) -> str:
    name, accelerator, threads = key
    return name if (accelerator, threads) == ("wasm", 1) else f"{name} ({accelerator}, threads: {threads})"


def _about(subject: Subject) -> dict[str, Any]:
    artifact = subject.artifact
    return {
        "size_bytes": subject.size_bytes,
        "target": subject.target,
        "precision": artifact.plan.precision if artifact else None,
        "content_hash": artifact.content_hash if artifact else None,
        "network": artifact.recipe if artifact else None,
    }


def _drifts(measured: Sequence[Latency]) -> list[Warned]:
    found = []
    for one in measured:
        third = len(one.samples_s) // 3
        if len(one.samples_s) < _LEAST_RUNS:
            continue
        change = statistics.median(one.samples_s[-third:]) / statistics.median(one.samples_s[:third]) - 1
        if abs(change) > _DRIFT:
            words = f"{abs(change):.0%} {'longer' if change > 0 else 'shorter'}"
            problem = f"{one.artifact}: a run in the last third took {words} than in the first"
            found.append(Warned(problem, _SLOWED if change > 0 else _QUICKENED))
    return found
