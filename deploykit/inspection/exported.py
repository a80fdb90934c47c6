"""Inspection of an exported file: what its own bytes say, beside what its manifest says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from deploykit.artifact import changed_files, read_artifact
from deploykit.chatter import contained
from deploykit.errors import ArtifactError, TargetError
from deploykit.graph.conventions import CONVENTIONS, not_counted, total, unknown
from deploykit.inspection.records import FileInspection
from deploykit.records import Artifact
from deploykit.targets.contents import FileContents
from deploykit.targets.table import TARGETS, part, target_of
from deploykit.vocab import Convention, Target


def inspect_file(path: Path | str, convention: Convention = Convention.MACS) -> FileInspection:
    """Return what the exported file at ``path`` holds: a file, its folder or its manifest, ours or somebody else's.

    The file itself is read, never run; a manifest beside it adds where it comes from and whether it was changed.
    Raises ArtifactError where it cannot be read, TargetError where the package that reads it is missing.
    """
    given = Path(path)
    artifact = _artifact(given)
    file = artifact.path if artifact else given
    contents = _contents(file)
    rules = CONVENTIONS[convention]
    changed = changed_files(artifact) if artifact else ()
    return FileInspection(
        contents=contents if artifact is None else _with_orders(contents, artifact),
        convention=convention,
        macs=None if rules.training_only else total(contents.work, convention),
        why_no_macs=rules.training_only,
        not_counted=not_counted(contents.work, convention),
        unknown=unknown(contents.work),
        recipe=artifact.recipe if artifact else None,
        verified=artifact.passed if artifact and not changed else None,
        changed=changed,
    )


def _artifact(path: Path) -> Artifact | None:
    """Return what the manifest says that describes ``path``; None for a file without one."""
    suffixes = {row.suffix for row in TARGETS.values()}
    is_file = path.suffix.lower() in suffixes
    if not path.exists():
        raise ArtifactError("There is no such file.", where=str(path), expected="an exported file or its manifest")
    try:
        artifact = read_artifact(path)
    except ArtifactError:
        # Other programs call their files manifest.json too, and the file can be read without one.
        if is_file:
            return None
        raise
    return None if is_file and artifact.path.resolve() != path.resolve() else artifact


def _contents(path: Path) -> FileContents:
    target = target_of(path)
    try:
        with contained():
            reader = part(target, "inspection")
    except ImportError as error:
        row = TARGETS[target]
        raise TargetError(
            f"Reading a {target} file needs a package that is not installed.",
            where=str(path),
            found=f"missing: {error.name}",
            next_step=row.install_command(),
        ) from error
    contents: FileContents = reader.read_contents(path)
    return contents


def _with_orders(contents: FileContents, artifact: Artifact) -> FileContents:
    """Return ``contents`` with the colour order of pixels, which only the manifest of some formats says."""
    if contents.target is Target.COREML:
        return contents
    orders = {record.name: record.color_order for record in artifact.inputs}
    return replace(contents, inputs=tuple(replace(item, color_order=orders.get(item.name)) for item in contents.inputs))
