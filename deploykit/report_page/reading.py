"""What a folder holds: artifacts with their manifests and certificates, and versioned records, read back strictly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from deploykit.artifact import MANIFEST, changed_files, read_artifact
from deploykit.certificate.file import read_certificate
from deploykit.comparison_records import LatencyComparison
from deploykit.doctor import Diagnosis
from deploykit.errors import ArtifactError, DeploykitError
from deploykit.evaluation.records import EvaluationRun
from deploykit.gate_records import GateReport
from deploykit.latency_records import Benchmark
from deploykit.provenance.records import ManifestCheck
from deploykit.quantization_report import QuantizationReport
from deploykit.quantize.sensitivity import Sensitivity
from deploykit.records import RECORD_VERSION, Artifact, Verification
from deploykit.report_page.records import Collection, Damaged, Entry, Left, LeftOut, Record
from deploykit.report_page.runs import Run, written_hashes
from deploykit.seal import SEAL, broken_fields, is_sealed
from deploykit.targets.table import TARGETS
from deploykit.verification.records import ArtifactVerification

# Kind of a record → what its body is. Keys that deploykit adds when it prints are passed over.
KINDS: dict[str, Any] = {
    "bench": Benchmark,
    "compare": LatencyComparison,
    "diagnosis": Diagnosis,
    "evaluate": EvaluationRun,
    "gate": GateReport,
    "pipeline": Run,
    "quantization-report": QuantizationReport,
    "sensitivity": Sensitivity,
    "verify": ArtifactVerification,
    "verify-manifest": ManifestCheck,
    "verify-reparam": tuple[Verification, ...],
}
# Read with the manifest that names them.
_OF_MANIFESTS = ("artifact", "certificate")
_LARGEST = 256 * 2**20


def collect(folder: Path) -> Collection:
    """Return what is in ``folder`` and below it; hidden files and folders and the insides of packages are passed over.

    Nothing in it stops the reading: what is damaged, foreign or of another version is listed with the reason.

    A record that is not what the pipeline wrote there is listed as changed. Raises ArtifactError where ``folder`` is no
    folder, or neither a manifest nor the record of a pipeline is in it.
    """
    if not folder.is_dir():
        raise ArtifactError(
            "The folder cannot be read.",
            where=str(folder),
            found="a file" if folder.exists() else "nothing",
            expected="a folder that deploykit export or deploykit pipeline wrote",
            next_step=f"name its folder: deploykit report {folder.parent}"
            if folder.exists()
            else f"export into it with: deploykit export -o {folder}",
        )
    entries: list[Entry] = []
    damaged: list[Damaged] = []
    records: list[Record] = []
    left_out: list[LeftOut] = []
    hashes = written_hashes(folder)
    for path in _json_files(folder):
        shown = path.relative_to(folder).as_posix()
        if path.name == MANIFEST:
            try:
                entries.append(_entry(path))
            except (DeploykitError, OSError, ValueError, RecursionError) as error:
                damaged.append(Damaged(shown, _words(error)))
            continue
        found = _record(path, shown, hashes.get(shown))
        if isinstance(found, LeftOut):
            left_out.append(found)
        elif found is not None:
            records.append(found)
    if not entries and not damaged and not any(one.kind == "pipeline" for one in records):
        raise ArtifactError(
            "There is no artifact in the folder.",
            where=str(folder),
            found=f"no {MANIFEST} in it or below it" + (f", {len(records)} records" if records else ""),
            expected="a folder that deploykit export or deploykit pipeline wrote",
            next_step=f"export into it with: deploykit export -o {folder}",
        )
    return Collection(folder, tuple(entries), tuple(damaged), tuple(records), tuple(left_out))


def _json_files(folder: Path) -> Iterator[Path]:
    """Yield the JSON files below ``folder`` in order of path."""
    packages = {row.suffix for row in TARGETS.values()}
    found = []
    for place, folders, names in os.walk(folder, onerror=lambda error: None):
        folders[:] = [
            name for name in folders if not name.startswith(".") and Path(name).suffix.lower() not in packages
        ]
        found += [Path(place) / name for name in names if name.endswith(".json") and not name.startswith(".")]
    yield from sorted(found)


def _entry(manifest: Path) -> Entry:
    artifact = read_artifact(manifest)
    raw = json.loads(manifest.read_bytes())
    sealed = is_sealed(raw)
    certificate, faults = _certificate(artifact, manifest.parent)
    return Entry(
        artifact,
        manifest,
        seal=str(raw.get(SEAL, "")),
        changed=changed_files(artifact),
        missing=tuple(one.path for one in artifact.files if not (manifest.parent / one.path).exists()),
        broken=broken_fields(raw) if sealed else ("its digests are missing",),
        certificate=certificate,
        certificate_faults=faults,
    )


def _certificate(artifact: Artifact, folder: Path) -> tuple[str, tuple[str, ...]]:
    if artifact.certificate is None:
        return "", ()
    try:
        read = read_certificate(folder / artifact.certificate.path)
    except ArtifactError as error:
        return "", (_words(error),)
    blocks = read.certificate.blocks
    worst = max((block.measured.float64_error for block in blocks), default=0.0)
    faults = [f"changed: {name}" for name in read.broken]
    faults += list(read.certificate.faults())
    if read.certificate.checkpoint_sha256 != artifact.checkpoint_sha256:
        faults.append("it is of another checkpoint")
    words = f"{len(blocks)} blocks, float64 error at most {worst:.1e}" if blocks else "nothing to fold or merge"
    return words, tuple(faults)


def _record(path: Path, shown: str, sha256: str | None) -> Record | LeftOut | None:
    """Return the record in ``path``, why it is none, or None for what is read with its manifest.

    ``sha256`` is that of the file as the pipeline wrote it, None where it did not.
    """
    try:
        if path.stat().st_size > _LARGEST:
            return LeftOut(shown, Left.UNREADABLE, f"more than {_LARGEST // 2**20} MiB")
        content = path.read_bytes()
        raw = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        return LeftOut(shown, Left.UNREADABLE, f"no JSON: {_words(error)}")
    if not isinstance(raw, dict) or "deploykit" not in raw or "kind" not in raw:
        return LeftOut(shown, Left.FOREIGN, "no record of deploykit: it names neither kind nor version")
    kind, version = raw["kind"], raw["deploykit"]
    if kind in _OF_MANIFESTS:
        return None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        reason = f"not the record of kind {_short(kind)} that the pipeline wrote: run the pipeline again"
        return LeftOut(shown, Left.CHANGED, reason)
    if version != RECORD_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > RECORD_VERSION
        hint = "install a newer deploykit" if newer else "measure again"
        return LeftOut(
            shown, Left.UNREADABLE, f"{_short(kind)}, version {_short(version)}, not {RECORD_VERSION}: {hint}"
        )
    if kind not in KINDS:
        return LeftOut(shown, Left.UNUSED, f"the report has no place for records of kind {_short(kind)}")
    try:
        return Record(shown, kind, _adapter(kind).validate_python(raw.get("body")), sealed=sha256 is not None)
    except (ValidationError, ValueError, RecursionError) as error:
        return LeftOut(shown, Left.UNREADABLE, f"a damaged record of kind {kind}: {_words(error)}")


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind])


def _short(value: object) -> str:
    return str(value)[:80]


def _words(error: Exception) -> str:
    """Return what is wrong, in one line."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
        return f"{place or 'body'}: {first['msg']}{more}"[:300]
    if isinstance(error, DeploykitError):
        return " ".join(part for part in (error.message, error.found) if part)[:300]
    return (str(error) or type(error).__name__)[:300]
