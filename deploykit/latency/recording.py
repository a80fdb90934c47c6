"""What the measuring agent said, heard event by event, so that nothing is lost when it ends early."""

from __future__ import annotations

import dataclasses
import json
import statistics
from dataclasses import dataclass, field
from typing import Any

from deploykit.latency.agent.median import interval_of_median
from deploykit.latency_records import Conditions, Latency, Machine, OperationTime, Startup, Stopped
from deploykit.vocab import Precision, Target

INTERRUPTED = "interrupted"


@dataclass
class Heard:
    """What was said of one subject so far; ``blocks`` are seconds of consecutive runs, in the order of time."""

    runtime: str = ""
    startup: dict[str, list[float]] = field(default_factory=dict)
    warmup_runs: int = 0
    warm: bool = False
    blocks: list[list[float]] = field(default_factory=list)
    away_s: list[float] = field(default_factory=list)
    minor_faults: list[int] = field(default_factory=list)
    major_faults: list[int] = field(default_factory=list)
    runs: int = 0
    seconds: float = 0.0
    starts_s: list[float] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)
    steps: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    stopped: Stopped | None = None
    interval_s: tuple[float, float] | None = None
    operations: tuple[OperationTime, ...] = ()
    problems: dict[str, str] = field(default_factory=dict)

    def samples_s(self) -> tuple[float, ...]:
        """Return the seconds of all runs, in the order of time."""
        return tuple(run for block in self.blocks for run in block)

    def own_blocks(self) -> list[list[float]]:
        """Return ``blocks`` without the time in which another program had the core."""
        if len(self.away_s) != self.runs:
            return self.blocks
        away = iter(self.away_s)
        return [[max(run - next(away), 0.0) for run in block] for block in self.blocks]

    def mean_steps(self) -> dict[str, float]:
        """Return the mean seconds of each step of a run, over all runs."""
        runs = sum(count for count, _ in self.steps)
        names = dict.fromkeys(name for _, steps in self.steps for name in steps)
        return {name: sum(count * steps.get(name, 0.0) for count, steps in self.steps) / runs for name in names}

    def started(self) -> Startup | None:
        """Return the medians of what the starts took; None where nothing of them was measured."""
        if not self.startup:
            return None
        times = {name: values for name, values in self.startup.items() if name.endswith("_s")}
        medians = {name: statistics.median(values) for name, values in times.items()}
        peaks = self.startup.get("peak_memory_bytes")
        return Startup(
            **medians,
            cold_cache=all(self.startup.get("cold_cache", [False])),
            peak_memory_bytes=round(statistics.median(peaks)) if peaks else None,
            starts=max(map(len, self.startup.values())),
            starts_s={name: tuple(values) for name, values in times.items()},
        )

    def start(self, figure: str, value: float) -> None:
        """Keep ``value`` of one start."""
        self.startup.setdefault(figure, []).append(value)


class Recording:
    """Everything that an agent said. ``hear`` takes its lines one by one; whatever else it is told is no event.

    ``offset_s`` is added to its times, for several agents on one clock.
    """

    def __init__(self, offset_s: float = 0.0) -> None:
        self._offset_s = offset_s
        self.subjects: dict[str, Heard] = {}
        self.machine: Machine | None = None
        self.runtimes: dict[str, str] = {}
        self.affinity: tuple[int, ...] = ()
        self.conditions: list[Conditions] = []
        self.common_problems: list[str] = []
        self.complete = False
        self.ended = "the measuring agent ended without a word"
        self.doing = ""

    def of(self, subject: str) -> Heard:
        """Return what was heard of ``subject``."""
        return self.subjects.setdefault(subject, Heard())

    def hear(self, line: str) -> str:
        """Take one line of the agent; return the name of the event, or an empty text for another line."""
        try:
            event = json.loads(line)
            take = getattr(self, f"_hear_{event['event']}")
            take(event)
        except (ValueError, KeyError, TypeError, AttributeError):
            # A shell's greeting, or half a line from an agent that was ended.
            return ""
        return str(event["event"])

    def share_done(self, min_runs: int, min_seconds: float) -> float:
        """Return how much of the least is done, from 0 to 1, of the subject that has come least far."""
        measured = [one for one in self.subjects.values() if one.blocks and "steady" not in one.problems]
        shares = [
            min(one.runs / max(min_runs, 1), one.seconds / min_seconds if min_seconds > 0 else 1.0, 1.0)
            for one in measured
        ]
        return min(shares, default=0.0)

    def end_early(self, why: str) -> None:
        """Say that the agent will not go on, and why."""
        self.complete, self.ended = False, why

    def _hear_hello(self, event: dict[str, Any]) -> None:
        known = {one.name for one in dataclasses.fields(Machine)}
        self.machine = Machine(**{key: value for key, value in event["machine"].items() if key in known})
        self.runtimes = dict(event["runtimes"])
        self.affinity = tuple(int(core) for core in event["affinity"])

    def _hear_conditions(self, event: dict[str, Any]) -> None:
        known = {one.name for one in dataclasses.fields(Conditions)}
        found = Conditions(**{key: value for key, value in event.items() if key in known})
        self.conditions.append(dataclasses.replace(found, time_s=found.time_s + self._offset_s))

    def _hear_opening(self, event: dict[str, Any]) -> None:
        doing = {"startup": "starting", "steady": "warming up", "profile": "profiling"}
        self.doing = f"{doing.get(event['phase'], event['phase'])} {event['subject']}"

    def _hear_started(self, event: dict[str, Any]) -> None:
        self.of(event["subject"]).start("process_s", float(event["seconds"]))

    def _hear_opened(self, event: dict[str, Any]) -> None:
        heard = self.of(event["subject"])
        heard.start("cold_load_s" if event["cold"] else "warm_load_s", float(event["seconds"]))
        if event["cold"]:
            heard.start("cold_cache", bool(event["cold_cache"]))

    def _hear_first(self, event: dict[str, Any]) -> None:
        self.of(event["subject"]).start("first_inference_s", float(event["seconds"]))

    def _hear_memory(self, event: dict[str, Any]) -> None:
        self.of(event["subject"]).start("peak_memory_bytes", int(event["peak_bytes"]))

    def _hear_warm(self, event: dict[str, Any]) -> None:
        heard = self.of(event["subject"])
        heard.runtime, heard.warmup_runs, heard.warm = event["runtime"], int(event["runs"]), bool(event["stable"])

    def _hear_samples(self, event: dict[str, Any]) -> None:
        heard = self.of(event["subject"])
        samples = [float(one) for one in event["samples_s"]]
        heard.starts_s.extend(float(one) + self._offset_s for one in event["starts_s"])
        heard.sessions.extend([int(event["session"])] * len(samples))
        heard.blocks.append(samples)
        heard.runs += len(samples)
        heard.seconds += sum(samples)
        heard.away_s.extend(float(one) for one in event.get("away_s", ()))
        heard.minor_faults.extend(int(one) for one in event.get("minor_faults", ()))
        heard.major_faults.extend(int(one) for one in event.get("major_faults", ()))
        if event["steps"]:
            heard.steps.append((len(samples), {key: float(value) for key, value in event["steps"].items()}))

    def _hear_stopped(self, event: dict[str, Any]) -> None:
        heard = self.of(event["subject"])
        heard.stopped = Stopped(event["why"])
        low, high = event["interval_s"]
        heard.interval_s = (float(low), float(high))

    def _hear_operations(self, event: dict[str, Any]) -> None:
        heard = self.of(event["subject"])
        heard.operations = tuple(
            OperationTime(
                name=row["name"],
                operation=row["operation"],
                seconds=float(row["seconds"]),
                modules=tuple(row["modules"]),
                values=tuple(row["values"]),
                reads=tuple(row["reads"]),
            )
            for row in event["rows"]
        )

    def _hear_problem(self, event: dict[str, Any]) -> None:
        if event["subject"] is None:
            self.common_problems.append(event["message"])
        else:
            self.of(event["subject"]).problems[event["phase"]] = event["message"]

    def _hear_end(self, event: dict[str, Any]) -> None:
        self.complete, self.ended = bool(event["complete"]), str(event["ended"])

    def latency(
        self,
        subject: str,
        *,
        device: str,
        driver: str,
        accelerator: str = "cpu",
        threads: int = 1,
        size_bytes: int | None = None,
        target: Target | None = None,
        precision: Precision | None = None,
        content_hash: str | None = None,
        network: str | None = None,
    ) -> Latency | None:
        """Return the record of ``subject``; None where no run of it was measured.

        One that was not said to have stopped was interrupted; its interval is taken from what there is.
        """
        heard = self.of(subject)
        if not heard.blocks:
            return None
        return Latency(
            artifact=subject,
            device=device,
            driver=driver,
            accelerator=accelerator,
            threads=threads,
            warmup_runs=heard.warmup_runs,
            samples_s=heard.samples_s(),
            size_bytes=size_bytes,
            runtime=heard.runtime,
            target=target,
            precision=precision,
            content_hash=content_hash,
            starts_s=tuple(heard.starts_s),
            sessions=tuple(heard.sessions),
            away_s=tuple(heard.away_s),
            minor_faults=tuple(heard.minor_faults),
            major_faults=tuple(heard.major_faults),
            affinity=self.affinity,
            stopped=heard.stopped or Stopped.INTERRUPTED,
            interval_s=heard.interval_s or interval_of_median(heard.own_blocks()),
            startup=heard.started(),
            steps=heard.mean_steps(),
            operations=heard.operations,
            network=network,
            warm=heard.warm,
            notes=tuple(
                f"a run failed, and ended it: {why}" if phase == "steady" else f"no {phase}: {why}"
                for phase, why in heard.problems.items()
            ),
        )
