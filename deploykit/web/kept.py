"""A benchmark that a page saved as a file, because no command listened any more or ever: read strictly, replayed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from deploykit.errors import ArtifactError
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark
from deploykit.web.events import MOST_EVENTS, Batch, Event, Hello, Sent, Text, Word
from deploykit.web.plan import REQUIRED_AGREEMENT, PagePlan
from deploykit.web.runs import BrowserRun, RefusedError

MOST_FILE_BYTES = 64 << 20
# Later ones are no dates.
_LAST_MOMENT = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_MOST_SUBJECTS = 1000


class KeptSubject(Sent):
    """One file that the page had: its name there, and the hash of its content."""

    name: Text
    content_hash: Word


class Kept(Sent):
    """What a page was asked for, and everything that it would have sent."""

    kind: Literal["deploykit web"]
    version: Literal[1]
    threads: Annotated[list[Annotated[int, Field(ge=1, le=256)]], Field(min_length=1, max_length=256)]
    accelerators: Annotated[list[Literal["wasm", "webgpu", "webnn"]], Field(min_length=1, max_length=3)]
    precision_target: Annotated[float, Field(gt=0, lt=1)] | None
    subjects: Annotated[list[KeptSubject], Field(min_length=1, max_length=_MOST_SUBJECTS)]
    events: Annotated[list[Event], Field(min_length=1, max_length=1_000_000)]


def read_kept(path: Path) -> Kept:
    """Return what the file at ``path`` holds.

    Raises ArtifactError where there is none, or it is not what a page saves.
    """
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_FILE_BYTES else b""
    except OSError as error:
        raise _not_kept(path, error.strerror or str(error)) from error
    if size > MOST_FILE_BYTES:
        raise _not_kept(path, f"{size} bytes")
    try:
        return Kept.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _not_kept(path, f"{where}: {first['msg']}"[:300]) from error


def benchmark_of(kept: Kept, subjects: Sequence[Subject], where: Path) -> Benchmark:
    """Return the record of ``kept``, which ``where`` held, for those of ``subjects`` whose content the page measured.

    Raises ArtifactError where a file of the page is not among ``subjects``, or the events contradict each other.
    """
    there = {one.artifact.content_hash: one for one in subjects if one.artifact is not None}
    unknown = [one.name for one in kept.subjects if one.content_hash not in there]
    if unknown:
        raise ArtifactError(
            "The page had a file that is not given.",
            where=str(where),
            found=", ".join(unknown)[:300],
            expected="the artifacts that the page was made of, unchanged",
            next_step="name their folder as ARTIFACT",
        )
    named = tuple(replace(there[one.content_hash], name=one.name) for one in kept.subjects)
    body = {
        "threads": kept.threads,
        "accelerators": kept.accelerators,
        "required_agreement": REQUIRED_AGREEMENT,
    }
    hellos = [one for one in kept.events if isinstance(one, Hello)]
    began = datetime.fromtimestamp(min(hellos[0].time_s, _LAST_MOMENT) if hellos else 0, UTC)
    run = BrowserRun(PagePlan(named, (), body, {}), kept.precision_target, started=began.isoformat(timespec="seconds"))
    try:
        for first in range(0, len(kept.events), MOST_EVENTS):
            run.hear(Batch(events=kept.events[first : first + MOST_EVENTS]))
    except RefusedError as error:
        raise _not_kept(where, str(error)) from error
    return run.benchmark()


def _not_kept(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        "This is no benchmark that a page saved.",
        where=str(path),
        found=found,
        expected="the file of the page's button Save as a file, unchanged",
    )
