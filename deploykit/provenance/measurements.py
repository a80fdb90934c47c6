"""Measurements kept beside an artifact, named and hashed in its manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploykit.artifact import hash_files, require_unchanged, write_manifest
from deploykit.evaluation.records import EvaluationRun
from deploykit.latency_records import Benchmark
from deploykit.records import RECORD_VERSION, Artifact, versioned

# Kind of a record → the field of its body that lists what was measured.
SUBJECTS = {"bench": "measured", "evaluate": "evaluations"}


def keep_measurements(artifacts: Iterable[Artifact], measured: Benchmark | EvaluationRun) -> tuple[Artifact, ...]:
    """Write what was ``measured`` beside each of ``artifacts`` in it; return these as their manifests now are.

    The file holds the whole record with its raw samples, the other subjects of the same run included, and is named by
    its hash: the same record is kept once. Raises ArtifactError where an artifact's files changed.
    """
    kind = "bench" if isinstance(measured, Benchmark) else "evaluate"
    content = (json.dumps(versioned(kind, measured), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
    name = f"{kind}-{hashlib.sha256(content).hexdigest()[:12]}.json"
    known = {row.content_hash for row in getattr(measured, SUBJECTS[kind])}
    kept = []
    for artifact in artifacts:
        if artifact.content_hash not in known:
            continue
        folder = require_unchanged(artifact).path.parent
        (folder / name).write_bytes(content)
        others = tuple(item for item in artifact.measurements if item.path != name)
        changed = replace(artifact, measurements=(*others, *hash_files(folder / name)))
        write_manifest(changed, folder)
        kept.append(changed)
    return tuple(kept)


def measurement_findings(path: Path, artifact: Artifact) -> list[str]:
    """Return why the file at ``path`` is no measurement of ``artifact``; nothing where it is one."""
    try:
        record: Any = json.loads(path.read_bytes())
        if record["kind"] not in SUBJECTS or record["deploykit"] != RECORD_VERSION:
            return [f"{path.name}: {record['kind']}, version {record['deploykit']}, instead of {' or '.join(SUBJECTS)}"]
        hashes = {row["content_hash"] for row in record["body"][SUBJECTS[record["kind"]]]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"{path.name}: {type(error).__name__}: {error}"]
    if artifact.content_hash in hashes:
        return []
    return [f"{path.name}: measured another file than content hash {artifact.content_hash}"]
