"""What saved runs say of one network in one form on one machine, over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.latency.machine import share_of_runs, warnings_about
from deploykit.latency.statistics import two_humps
from deploykit.latency_records import PREEMPTED, Latency, Stopped
from deploykit.results.store import SavedRun
from deploykit.vocab import Precision, Target


@dataclass(frozen=True)
class Subject:
    """What has to be equal for two figures to be of one thing: network, form, runtime and place."""

    network: str
    target: Target | None
    precision: Precision | None
    runtime: str
    threads: int
    accelerator: str
    driver: str
    machine: str


@dataclass(frozen=True)
class Point:
    """One measured median, in seconds, with its 95 % interval where the run gave one.

    ``change`` is the median over that of the point before, minus 1; None for the first. It tells a trend, no verdict:
    two runs at different times differ for reasons that have nothing to do with the file. ``stopped``: why the
    measurement ended. ``cut_short`` says why there are fewer runs than were asked for, an empty text where there are
    not; ``disturbed`` are other programs, heat and the like while it ran.
    """

    started: str
    median_s: float
    interval_s: tuple[float, float] | None
    runs: int
    artifact: str
    content_hash: str | None
    size_bytes: int | None
    complete: bool
    path: Path
    change: float | None = None
    stopped: Stopped | None = None
    preempted: float | None = None
    cut_short: str = ""
    disturbed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Series:
    """All points of one subject, oldest first."""

    subject: Subject
    points: tuple[Point, ...]

    @property
    def last(self) -> Point:
        """The newest point."""
        return self.points[-1]


def network_of(latency: Latency) -> str:
    """Return the network of ``latency``: as the run says, else the name of its file."""
    return latency.network or Path(latency.artifact).stem


def series_of(
    runs: Sequence[SavedRun], *, network: str | None = None, machine: str | None = None
) -> tuple[Series, ...]:
    """Return the series in ``runs``, which are oldest first, sorted by network and place.

    Only those of ``network`` and of machines whose name holds ``machine``, where given.
    """
    found: dict[Subject, list[Point]] = {}
    for run in runs:
        if machine is not None and machine.lower() not in run.machine.lower():
            continue
        for one in run.measured:
            if network is not None and network_of(one) != network:
                continue
            points = found.setdefault(_subject(one, run), [])
            points.append(_point(one, run, points[-1] if points else None))
    ordered = sorted(found.items(), key=lambda item: tuple(str(part) for part in vars(item[0]).values()))
    return tuple(Series(subject, tuple(points)) for subject, points in ordered)


def _subject(latency: Latency, run: SavedRun) -> Subject:
    return Subject(
        network=network_of(latency),
        target=latency.target,
        precision=latency.precision,
        runtime=latency.runtime,
        threads=latency.threads,
        accelerator=latency.accelerator,
        driver=latency.driver,
        machine=run.machine,
    )


def _point(latency: Latency, run: SavedRun, before: Point | None) -> Point:
    return Point(
        started=run.started,
        median_s=latency.median_s,
        interval_s=latency.interval_s,
        runs=len(latency.samples_s),
        artifact=latency.artifact,
        content_hash=latency.content_hash,
        size_bytes=latency.size_bytes,
        complete=run.complete,
        path=run.path,
        change=None if before is None or not before.median_s else latency.median_s / before.median_s - 1,
        stopped=latency.stopped,
        preempted=latency.preempted,
        cut_short=_cut_short(latency, run),
        disturbed=tuple(_disturbances(latency, run)),
    )


def _cut_short(latency: Latency, run: SavedRun) -> str:
    if not run.complete:
        return run.ended or Stopped.INTERRUPTED.value
    return Stopped.INTERRUPTED.value if latency.stopped is Stopped.INTERRUPTED else ""


def _disturbances(latency: Latency, run: SavedRun) -> Iterator[str]:
    if latency.preempted is not None and latency.preempted > PREEMPTED:
        yield f"other programs had the core during {share_of_runs(latency.preempted)}"
    if two_humps(latency.own_s):
        yield "the runs lie in two humps"
    yield from (one.problem for one in warnings_about(None, run.conditions, latency.threads, latency.affinity))
