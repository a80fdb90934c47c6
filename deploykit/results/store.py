"""Runs of ``bench`` as files: ``<results>/<machine>/bench-<date>-<hash>.json``, one versioned record each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from deploykit.atomic import replacing
from deploykit.errors import ArtifactError, UsageError
from deploykit.latency_records import Benchmark, Latency, Machine, OperationTime, RunSummary, Startup, Stopped
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


def read_runs(folder: Path = FOLDER) -> tuple[SavedRun, ...]:
    """Return the saved runs in ``folder`` and one level below it, oldest first; other records there are passed over.

    Raises ArtifactError for a file that is no JSON, and for a run that is damaged or of another version.
    """
    paths = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])
    found = [run for path in paths if (run := _read(path)) is not None]
    return tuple(sorted(found, key=lambda one: (one.started, one.path)))


def _read(path: Path) -> SavedRun | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if not isinstance(record, dict) or record.get("kind") != KIND:
        return None
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
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


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
            values["startup"] = Startup(**values["startup"])
        values["operations"] = tuple(OperationTime(**_tuples(one)) for one in values.get("operations", ()))
        values["summaries"] = tuple(RunSummary(**_tuples(one)) for one in values.get("summaries", ()))
        yield Latency(**values)


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
