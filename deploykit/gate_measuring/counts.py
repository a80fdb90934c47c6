"""What is counted in a file and the same on every machine, and whether the file is the one that was exported."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from deploykit.artifact import changed_files, hash_items, manifest_of
from deploykit.chatter import contained
from deploykit.errors import DeploykitError
from deploykit.gate_records import Measure, Measurement
from deploykit.inspection import inspect_file
from deploykit.records import Artifact
from deploykit.seal import broken_fields, is_sealed
from deploykit.targets.table import TARGETS, part

# The oldest date that a ZIP archive can hold: the bytes say nothing of when they were packed.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def changed_since_export(artifact: Artifact) -> tuple[str, ...]:
    """Return what is not as it was exported: bytes of files, the hash of the content, the manifest's seal."""
    changed = changed_files(artifact)
    if changed:
        return changed
    manifest = manifest_of(artifact.path)
    record = json.loads(manifest.read_bytes())
    broken = broken_fields(record) if is_sealed(record) else ()
    found = [f"{manifest.name}: {', '.join(broken)}"] if broken else []
    if not TARGETS[artifact.plan.target].missing():
        content = content_of(artifact)
        if content != artifact.content_hash:
            found.append(f"content {content[:12]} instead of {artifact.content_hash[:12]}")
    return tuple(found)


def content_of(artifact: Artifact) -> str:
    """Return the canonical content hash of the file of ``artifact`` as it is on disk."""
    with contained():
        return hash_items(part(artifact.plan.target, "export").content_items(artifact.path))


def count(artifact: Artifact) -> dict[Measure, Measurement]:
    """Return what is counted in the file of ``artifact``; where it cannot be read, why."""
    sizes = {
        Measure.BYTES: Measurement(artifact.size_bytes),
        Measure.COMPRESSED_BYTES: Measurement(compressed_bytes(artifact.path)),
    }
    try:
        found = inspect_file(artifact.path)
    except DeploykitError as error:
        why = Measurement(None, f"{error.message} {error.found or ''}".strip())
        return {**sizes, Measure.OPERATIONS: why, Measure.TRANSPOSES: why, Measure.MACS: why}
    unknown = ", ".join(found.unknown)
    return {
        **sizes,
        Measure.OPERATIONS: Measurement(sum(found.contents.operations.values())),
        Measure.TRANSPOSES: Measurement(found.contents.transposes),
        Measure.MACS: (
            Measurement(None, f"nothing says what these operations cost: {unknown}")
            if unknown or found.macs is None
            else Measurement(found.macs)
        ),
    }


def compressed_bytes(path: Path) -> int:
    """Return the size of a ZIP archive of the file or package at ``path``, deflated at level 9, dates left out."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for item in files:
            entry = zipfile.ZipInfo(item.relative_to(path.parent).as_posix(), _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, item.read_bytes(), compresslevel=9)
    return len(packed.getvalue())
