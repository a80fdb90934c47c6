"""Artifacts on disk: their hashes, and the manifest beside them that says what they are and came from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploykit.atomic import replacing
from deploykit.errors import ArtifactError
from deploykit.records import (
    RECORD_VERSION,
    Artifact,
    Calibration,
    Comparison,
    ExportPlan,
    FileHash,
    Fired,
    KeptLayer,
    PassReport,
    Quantization,
    QuantizationPlan,
    Skipped,
    TensorRecord,
    Tolerance,
    Trade,
    versioned,
)
from deploykit.seal import sealed
from deploykit.targets.table import TARGETS
from deploykit.vocab import ColorOrder, Estimator, InputKind, Layout, OutputKind, Precision, Target

MANIFEST = "manifest.json"
_KIND = "artifact"
_TURNS = 100


def hash_items(items: Iterable[bytes]) -> str:
    """Return the SHA-256 of ``items`` in order, each preceded by its length so that no two lists collide."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(len(item).to_bytes(8, "big"))
        digest.update(item)
    return digest.hexdigest()


def hash_files(path: Path) -> tuple[FileHash, ...]:
    """Return the hash of the file at ``path``, or of every file below the package at ``path``, in order of name."""
    files = [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())
    return tuple(
        FileHash(
            item.relative_to(path.parent).as_posix(), hashlib.sha256(item.read_bytes()).hexdigest(), item.stat().st_size
        )
        for item in files
    )


def require_writable(folder: Path) -> None:
    """Raise ArtifactError where ``folder`` neither is nor can become a folder that takes files; nothing is made."""
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise ArtifactError(
            "The output folder cannot be written.",
            where=str(folder),
            found=f"{nearest} is " + ("not writable" if nearest.is_dir() else "no folder"),
            expected="a folder that can be created and written to",
            next_step="choose another with --output-dir",
        )


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """Yield a new temporary folder beside ``folder`` that takes its place at the end, or vanishes on any error.

    What ``folder`` held before stays until then, and stays for good on an error.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ArtifactError(
            "The output folder cannot be written.",
            where=str(folder.parent),
            found=error.strerror or str(error),
            expected="a folder that can be created and written to",
            next_step="choose another with --output-dir",
        ) from error
    try:
        temporary.chmod(0o755)
        yield temporary
        put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(new: Path, folder: Path, *, scratch: Path | None = None) -> None:
    """Put ``new`` in the place of ``folder``; of several exports at once the last one stays, each of them whole.

    What was there lies in ``scratch`` until it is removed, a folder on the same disk; None: beside ``folder``.
    """
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-old-", dir=scratch or folder.parent) as aside:
        for turn in range(_TURNS):
            old: Path | None = Path(aside) / str(turn)
            try:
                folder.rename(Path(aside) / str(turn))
            except FileNotFoundError:
                old = None
            try:
                new.rename(folder)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    continue
                if old is not None:
                    old.rename(folder)
                raise
            return
    raise ArtifactError(
        "The artifact cannot be put in place: others write to the same folder all the time.",
        where=str(folder),
        next_step="give each export its own --output-dir",
    )


def write_manifest(artifact: Artifact, folder: Path) -> None:
    """Write ``artifact`` as the sealed manifest of ``folder``; its path is relative, so that the folder can move."""
    record = versioned(_KIND, artifact)
    record["body"]["path"] = artifact.path.name
    with replacing(folder / MANIFEST) as temporary:
        temporary.write_bytes(rendered_manifest(sealed(record)))


def rendered_manifest(record: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest: one record has one spelling, so that every changed byte shows."""
    return (json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_artifact(path: Path) -> Artifact:
    """Return the artifact described by the manifest at, in, or beside ``path``.

    Raises ArtifactError where there is none, it is of another version, or it is damaged.
    """
    manifest = manifest_of(path)
    try:
        record = json.loads(manifest.read_text("utf-8"))
        if record["kind"] != _KIND or record["deploykit"] != RECORD_VERSION:
            raise ArtifactError(
                "The manifest is of another kind or version.",
                where=str(manifest),
                found=f"{record['kind']}, version {record['deploykit']}",
                expected=f"{_KIND}, version {RECORD_VERSION}",
                next_step="export again",
            )
        return _artifact(record["body"], manifest.parent)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            "The manifest is damaged.",
            where=str(manifest),
            found=f"{type(error).__name__}: {error}",
            expected="a manifest as deploykit export writes it",
            next_step="export again",
        ) from error


def manifest_of(path: Path) -> Path:
    """Return the manifest at, in, or beside ``path``. Raises ArtifactError where there is none."""
    for candidate in (path, path / MANIFEST, path.parent / MANIFEST):
        if candidate.name == MANIFEST and not _in_package(candidate) and candidate.is_file():
            return candidate
    raise ArtifactError(
        "There is no manifest.",
        where=str(path),
        found="nothing" if not path.exists() else "no manifest.json in it or beside it",
        expected="an artifact that deploykit export wrote",
        next_step="give one of the paths that deploykit export printed; deploykit export writes them",
    )


def _in_package(manifest: Path) -> bool:
    """Whether ``manifest`` lies in a package: Core ML's own Manifest.json has that name where case is ignored."""
    return manifest.parent.suffix.lower() in {row.suffix for row in TARGETS.values()}


def find_artifacts(folder: Path) -> tuple[Artifact, ...]:
    """Return every artifact below ``folder`` in order of path; an empty tuple where there is none.

    Hidden folders are passed over, with all that is in them: work in progress lies there.
    """
    manifests = []
    # A glob would fail on a folder that somebody removes meanwhile.
    for place, inner, names in os.walk(folder, onerror=lambda error: None) if folder.is_dir() else ():
        inner[:] = [name for name in inner if not name.startswith(".")]
        if MANIFEST in names and not _in_package(Path(place) / MANIFEST):
            manifests.append(Path(place) / MANIFEST)
    return tuple(read_artifact(path) for path in sorted(manifests))


def require_artifacts(folder: Path) -> tuple[Artifact, ...]:
    """Return every artifact below ``folder``, at least one. Raises ArtifactError where there is none."""
    found = find_artifacts(folder)
    if not found:
        raise ArtifactError(
            "There is no artifact in the folder.",
            where=str(folder),
            found=f"no {MANIFEST} in it or below it" if folder.is_dir() else "no folder",
            expected="a folder that deploykit export wrote",
            next_step="export first, or name the file itself",
        )
    return found


def changed_files(artifact: Artifact) -> tuple[str, ...]:
    """Return the files of ``artifact`` whose bytes differ from its manifest, are missing, or were added."""
    now = {item.path: item.sha256 for item in hash_files(artifact.path)} if artifact.path.exists() else {}
    then = {item.path: item.sha256 for item in artifact.files}
    return tuple(sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name)))


def require_unchanged(artifact: Artifact) -> Artifact:
    """Return ``artifact``; ArtifactError where its files are not those that its manifest describes."""
    changed = changed_files(artifact)
    if changed:
        raise ArtifactError(
            "The file is not the one that its manifest describes.",
            where=str(artifact.path),
            found=_differences(artifact, changed),
            expected=f"the files of {MANIFEST} beside it",
            next_step="export again",
        )
    return artifact


def _differences(artifact: Artifact, changed: tuple[str, ...]) -> str:
    """Return in words what became of each of the ``changed`` files."""
    now = {item.path for item in hash_files(artifact.path)} if artifact.path.exists() else set()
    then = {item.path for item in artifact.files}
    return ", ".join(
        f"{name} is {'changed' if name in now & then else 'missing' if name in then else 'not in the manifest'}"
        for name in changed
    )


def _artifact(body: dict[str, Any], folder: Path) -> Artifact:
    return Artifact(
        **{
            **body,
            "plan": _plan(body["plan"]),
            "path": folder / body["path"],
            "files": tuple(FileHash(**item) for item in body["files"]),
            "inputs": tuple(_tensor(item) for item in body["inputs"]),
            "outputs": tuple(_tensor(item) for item in body["outputs"]),
            "passes": tuple(_pass(item) for item in body["passes"]),
            "comparisons": tuple(_comparison(item) for item in body["comparisons"]),
            "lint": tuple(body["lint"]),
            "certificate": FileHash(**body["certificate"]) if body.get("certificate") else None,
            "measurements": tuple(FileHash(**item) for item in body.get("measurements", ())),
            "quantization": _quantization(body["quantization"]) if body.get("quantization") else None,
        }
    )


def _plan(body: dict[str, Any]) -> ExportPlan:
    return ExportPlan(
        **{
            **body,
            "target": Target(body["target"]),
            "precision": Precision(body["precision"]),
            "layout": Layout(body["layout"]),
            "input_kind": InputKind(body["input_kind"]),
            "output_kind": OutputKind(body["output_kind"]),
            "input_shapes": tuple(tuple(shape) for shape in body["input_shapes"]),
            "passes": tuple(body["passes"]),
            "quantization": _quantization_plan(body["quantization"]) if body.get("quantization") else None,
        }
    )


def _quantization_plan(body: dict[str, Any]) -> QuantizationPlan:
    return QuantizationPlan(**{**body, "estimator": Estimator(body["estimator"]) if body["estimator"] else None})


def _quantization(body: dict[str, Any]) -> Quantization:
    source = body["calibration"]
    calibration = (
        Calibration(**{**source, "names": tuple(source["names"]), "notes": tuple(source["notes"])}) if source else None
    )
    return Quantization(
        **{
            **body,
            "calibration": calibration,
            "estimator": Estimator(body["estimator"]) if body["estimator"] else None,
            "kept": tuple(KeptLayer(one["layer"], float(one["alone_snr_db"])) for one in body["kept"]),
            "trades": tuple(Trade(**one) for one in body["trades"]),
            "notes": tuple(body["notes"]),
        }
    )


def _tensor(body: dict[str, Any]) -> TensorRecord:
    return TensorRecord(
        **{
            **body,
            "shape": tuple(body["shape"]),
            "layout": Layout(body["layout"]),
            "color_order": ColorOrder(body["color_order"]) if body["color_order"] else None,
        }
    )


def _pass(body: dict[str, Any]) -> PassReport:
    fired = tuple(Fired(tuple(item["modules"]), item["detail"]) for item in body["fired"])
    return PassReport(body["name"], fired, tuple(Skipped(**item) for item in body["skipped"]))


def _comparison(body: dict[str, Any]) -> Comparison:
    numbers = {key: float(body[key]) for key in ("max_abs_error", "median_abs_error", "relative_l2", "snr_db")}
    return Comparison(
        **{
            **body,
            **numbers,
            "worst_index": tuple(body["worst_index"]),
            "tolerance": Tolerance(**body["tolerance"]),
            "failures": tuple(body["failures"]),
        }
    )
