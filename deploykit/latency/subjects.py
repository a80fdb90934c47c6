"""What is to be measured: exported artifacts with their manifest, and bare files of a known format."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploykit.artifact import MANIFEST, hash_files, read_artifact, require_artifacts, require_unchanged
from deploykit.errors import ArtifactError, UsageError
from deploykit.recipe import bundled_recipes
from deploykit.records import Artifact
from deploykit.targets.table import TARGETS, target_of
from deploykit.vocab import Target


@dataclass(frozen=True)
class Subject:
    """One file to measure; ``name`` is the shortest end of its path that tells it from the others."""

    name: str
    path: Path
    target: Target
    size_bytes: int
    artifact: Artifact | None


def find_subjects(paths: Sequence[Path]) -> tuple[Subject, ...]:
    """Return what ``paths`` name, in their order: files, packages, and every artifact below a folder.

    Raises:
        ArtifactError: nothing is there, a manifest is damaged, or a file is not the one of its manifest.
        TargetError: a file of an unknown format.
        UsageError: one file twice.
    """
    return _subjects([item for path in paths for item in _items(path)])


def how_to_export(path: Path) -> str:
    """Return the command that writes artifacts: of the bundled network that ``path``, which is missing, names."""
    network = path.name if path.name in bundled_recipes() else "sinet"
    return f"deploykit export {network} --target onnx --target tflite writes files into artifacts/{network}"


def exported_subjects(artifacts: Iterable[Artifact]) -> tuple[Subject, ...]:
    """Return ``artifacts`` as subjects. Raises as ``find_subjects`` does."""
    return _subjects([(require_unchanged(one).path, one) for one in artifacts])


def _items(path: Path) -> list[tuple[Path, Artifact | None]]:
    if not path.exists():
        raise ArtifactError(
            "There is no such file.",
            where=str(path),
            found="nothing",
            expected="an exported file, or a folder that deploykit export wrote",
            next_step=how_to_export(path),
        )
    if path.name == MANIFEST:
        artifact = require_unchanged(read_artifact(path))
        return [(artifact.path, artifact)]
    packages = {row.suffix for row in TARGETS.values()}
    if path.is_dir() and path.suffix.lower() not in packages:
        return [(require_unchanged(one).path, one) for one in require_artifacts(path)]
    target_of(path)
    beside = path.parent / MANIFEST
    artifact_beside = read_artifact(beside) if beside.is_file() else None
    if artifact_beside is not None and artifact_beside.path.name == path.name:
        return [(path, require_unchanged(artifact_beside))]
    return [(path, None)]


def _subjects(items: Sequence[tuple[Path, Artifact | None]]) -> tuple[Subject, ...]:
    seen: set[Path] = set()
    for path, _ in items:
        if path.resolve() in seen:
            raise UsageError(
                "The same file is given twice.",
                where=str(path),
                expected="each file once",
                next_step="copy it under another name to measure it against itself",
            )
        seen.add(path.resolve())
    names = short_names([path for path, _ in items])
    return tuple(
        Subject(name, path, target_of(path), sum(one.size_bytes for one in hash_files(path)), artifact)
        for name, (path, artifact) in zip(names, items, strict=True)
    )


def unmeasurable(target: Target) -> str:
    """Return why files of ``target`` cannot be measured on this machine, or an empty text where they can."""
    row = TARGETS[target]
    missing = f"not installed: {', '.join(row.missing())}; {row.install_command()}" if row.missing() else ""
    return timed_elsewhere(target) or missing


def timed_elsewhere(target: Target) -> str:
    """Return why this machine can never time files of ``target``, or an empty text where it can, given the packages."""
    if target is Target.COREML and sys.platform != "darwin":
        return "Core ML needs macOS; the reference interpreter's speed says nothing about it"
    if target is Target.COREAI:
        return "a Core AI file runs here in a process of its own, to verify it; that says nothing about its speed"
    return ""


def short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the shortest end of each path that no other of ``paths``, all different, ends with."""
    parts = [path.resolve().parts for path in paths]
    return tuple(_short_name(index, parts) for index in range(len(parts)))


def _short_name(index: int, parts: Sequence[tuple[str, ...]]) -> str:
    own = parts[index]
    for length in range(1, len(own)):
        same = sum(other[-length:] == own[-length:] for other in parts)
        if same == 1:
            return "/".join(own[-length:])
    return "/".join(own)
