"""Runs of ``bench`` as files: ``<results>/<machine>/bench-<date>-<hash>.json``, one versioned record each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from deploykit.atomic import replacing
from deploykit.errors import ArtifactError, UsageError
from deploykit.latency_records import (
    Benchmark,
    Conditions,
    Latency,
    Machine,
    OperationTime,
    RunSummary,
    Startup,
    Stopped,
)
from deploykit.records import RECORD_VERSION, versioned
from deploykit.vocab import Precision, Target

FOLDER = Path("benchmarks") / "results"
KIND = "bench"
_UNSAFE = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True)
class SavedRun:
    """One record: where it lies, when it was measured (UTC, ISO 8601), on what, and what it holds."""

    path: Path
    started: str
    machine: str
    measured: tuple[Latency, ...]
    complete: bool
    ended: str = ""
    conditions: tuple[Conditions, ...] = ()


@dataclass(frozen=True)
class SavedRuns:
    """What a folder of results holds: every run once, oldest first, and what is none.

    ``damaged`` are records that cannot be read; ``foreign``: files that are no record of deploykit; ``repeated``: a
    file and the one that holds the same run and counts.
    """

    runs: tuple[SavedRun, ...]
    damaged: tuple[ArtifactError, ...] = ()
    foreign: tuple[Path, ...] = ()
    repeated: tuple[tuple[Path, Path], ...] = ()


def save_run(run: Benchmark, folder: Path = FOLDER) -> Path:
    """Write ``run`` with its raw samples below ``folder`` and return the file.

    The file is named by date and content: the same run is kept once, and none is written over. Raises UsageError where
    the run does not say which machine it was, or the folder cannot be written.
    """
    if run.machine is None:
        raise UsageError(
            "A run is saved by its machine, and this one does not name any.",
            where=str(folder),
            found="no machine facts",
            expected="a run of deploykit bench",
        )
    content = (json.dumps(versioned(KIND, run), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    date = re.sub(r"[^0-9T]", "", run.started.split(".")[0].split("+")[0]) or "undated"
    name = f"{KIND}-{date}-{hashlib.sha256(content).hexdigest()[:8]}.json"
    path = folder / machine_folder(run.machine) / name
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(
            "The run cannot be saved.",
            where=str(path),
            found=error.strerror or str(error),
            expected="a folder that can be written, with space in it",
            next_step="name another with --results-dir",
        ) from error
    return path


def machine_folder(machine: Machine) -> str:
    """Return the name of the folder of ``machine``: lower case letters, digits and dashes."""
    return _UNSAFE.sub("-", machine.name.lower()).strip("-") or "machine"


def read_runs(folder: Path = FOLDER) -> SavedRuns:
    """Return the saved runs in ``folder`` and one level below it; other records of deploykit there are passed over.

    A run is damaged where its file is no JSON, of another version, or lacks something; the others are read.
    """
    runs: dict[str, SavedRun] = {}
    damaged, foreign, repeated = [], [], []
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        try:
            record = _record(path)
            if record is None:
                foreign.append(path)
            elif record["kind"] == KIND:
                identity = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
                if identity in runs:
                    repeated.append((path, runs[identity].path))
                else:
                    runs[identity] = _run(path, record)
        except ArtifactError as error:
            damaged.append(error)
    ordered = sorted(runs.values(), key=lambda one: (one.started, one.path))
    return SavedRuns(tuple(ordered), tuple(damaged), tuple(foreign), tuple(repeated))


def _record(path: Path) -> dict[str, Any] | None:
    """Return the record at ``path``; None for a file that is none and does not bear the name of one."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from error
    if isinstance(record, dict) and isinstance(record.get("kind"), str):
        return record
    if path.name.startswith(f"{KIND}-"):
        raise _damaged(path, "no record of deploykit")
    return None


def _run(path: Path, record: dict[str, Any]) -> SavedRun:
    if record.get("deploykit") != RECORD_VERSION:
        raise _damaged(path, f"a record of version {record.get('deploykit')}")
    try:
        body = record["body"]
        machine = body.get("machine") or {}
        return SavedRun(
            path=path,
            started=str(body.get("started", "")),
            machine=str(machine.get("name") or body["measured"][0]["device"] if body["measured"] else ""),
            measured=tuple(_latencies(body["measured"])),
            complete=bool(body.get("complete", True)),
            ended=str(body.get("ended", "")),
            conditions=tuple(_conditions(body.get("conditions", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def _conditions(rows: Iterable[dict[str, Any]]) -> Iterator[Conditions]:
    known = {one.name for one in fields(Conditions)}
    for row in rows:
        yield Conditions(**{key: value for key, value in row.items() if key in known})


def _latencies(rows: list[dict[str, Any]]) -> Iterator[Latency]:
    known = {one.name for one in fields(Latency)}
    for row in rows:
        values = {key: value for key, value in row.items() if key in known and value is not None}
        values.update({key: tuple(value) for key, value in values.items() if isinstance(value, list)})
        if not values["samples_s"]:
            raise ValueError(f"no samples of {values['artifact']}")
        for key, kind in (("target", Target), ("precision", Precision), ("stopped", Stopped)):
            if key in values:
                values[key] = kind(values[key])
        if "startup" in values:
            values["startup"] = _startup(values["startup"])
        values["operations"] = tuple(OperationTime(**_tuples(one)) for one in values.get("operations", ()))
        values["summaries"] = tuple(RunSummary(**_tuples(one)) for one in values.get("summaries", ()))
        yield Latency(**values)


def _startup(row: dict[str, Any]) -> Startup:
    known = {one.name for one in fields(Startup)}
    found = {key: value for key, value in row.items() if key in known}
    return Startup(**{**found, "starts_s": _tuples(found.get("starts_s", {}))})


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}


def _damaged(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        "A saved run cannot be read.",
        where=str(path),
        found=found[:300],
        expected=f"a record of deploykit bench --save, version {RECORD_VERSION}",
        next_step="remove the file, or measure again with the deploykit at hand",
    )
