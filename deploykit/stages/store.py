"""What the stages of a folder gave, by name: the key that decided it, and the hash of every file that it consists of.

A result counts only where its key is that of now and its files are there as they were recorded. Its files are put in
place whole before it is written down, and whatever a killed run left half-done lies in ``work``, which is emptied.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.artifact import MANIFEST
from deploykit.records import RECORD_VERSION, FileHash, versioned
from deploykit.seal import DIGESTS, SEAL
from deploykit.stages.keys import difference, key_of

FOLDER = ".pipeline"
KIND = "pipeline-stage"


@dataclass(frozen=True)
class Stored:
    """What a stage gave: what decided it, its files relative to the pipeline's folder, how long it took.

    ``note`` is what it comes to, in a sentence.
    """

    stage: str
    inputs: Mapping[str, str]
    outputs: tuple[FileHash, ...]
    seconds: float
    cpu_seconds: float
    note: str = ""


class Store:
    """The results of one folder ``root``; whoever uses it holds the lock at ``lock``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / FOLDER / "lock"
        self.work = root / FOLDER / "work"
        self._results = root / FOLDER / "results"

    def clean(self) -> int:
        """Empty ``work``; return how many things a run that was killed had left there."""
        left = len([one for one in self.work.iterdir() if one.name != "tmp"]) if self.work.is_dir() else 0
        shutil.rmtree(self.work, ignore_errors=True)
        (self.work / "tmp").mkdir(parents=True)
        return left

    def aside(self, name: str) -> Path:
        """Return where the file ``name`` is put while it may not be of what there is; ``clean`` removes it."""
        return self.work / "tmp" / name

    def read(self, stage: str) -> Stored | None:
        """Return what ``stage`` gave the last time that it passed; None for nothing that can be read."""
        try:
            record = json.loads(self._path(stage).read_bytes())
            if (record["kind"], record["deploykit"], record["body"]["stage"]) != (KIND, RECORD_VERSION, stage):
                return None
            body = record["body"]
            return Stored(**{**body, "outputs": tuple(FileHash(**one) for one in body["outputs"])})
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, stored: Stored) -> None:
        """Keep ``stored``, whose files are in place; files of the result before it that are not in it are removed."""
        before = self.read(stored.stage)
        path = self._path(stored.stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.work / f"{key_of({'stage': stored.stage})[:16]}.json"
        temporary.write_text(json.dumps(versioned(KIND, stored), indent=1, sort_keys=True, allow_nan=False) + "\n")
        temporary.replace(path)
        self._failure(stored.stage).unlink(missing_ok=True)
        if before is not None:
            kept = {one.path for one in stored.outputs}
            self._remove([one for one in before.outputs if one.path not in kept])

    def discard(self, stage: str) -> None:
        """Take back what ``stage`` gave before: it is not the result of what there is now."""
        before = self.read(stage)
        self._path(stage).unlink(missing_ok=True)
        if before is not None:
            self._remove(before.outputs)

    def note_failure(self, stage: str) -> None:
        """Take back what ``stage`` gave before, and keep that it failed."""
        self.discard(stage)
        path = self._failure(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    def without_result(self, stage: str) -> str:
        """Return why ``stage``, of which there is no result, has to be done."""
        return "failed last time" if self._failure(stage).is_file() else "never done"

    def stale(self, stored: Stored, inputs: Mapping[str, str]) -> str:
        """Return why the stage has to be done again; an empty text where ``stored`` is its result as it would be."""
        changed = difference(stored.inputs, inputs)
        if changed:
            return changed
        for one in stored.outputs:
            path = self.root / one.path
            if not path.is_file():
                return f"{one.path} is missing"
            if file_hash(path, self.root).sha256 != one.sha256:
                return f"{one.path} was changed"
        return ""

    def _remove(self, files: Sequence[FileHash]) -> None:
        """Remove those of ``files`` that are as they were recorded, and the folders that this leaves empty."""
        for one in files:
            path = self.root / one.path
            if not path.is_file() or file_hash(path, self.root).sha256 != one.sha256:
                continue
            path.unlink()
            for folder in path.parents:
                if folder == self.root:
                    break
                with suppress(OSError):
                    folder.rmdir()

    def _failure(self, stage: str) -> Path:
        return self._results / f"{stage}.failed"

    def _path(self, stage: str) -> Path:
        return self._results / f"{stage}.json"


def digest_of(outputs: Sequence[FileHash]) -> str:
    """Return the SHA-256 over all of ``outputs``."""
    return key_of({one.path: one.sha256 for one in outputs})


def file_hash(path: Path, root: Path) -> FileHash:
    """Return the hash of a file, its path relative to ``root``; that of a manifest leaves out what was measured later.

    ``bench --keep`` names measurements in a manifest: the artifact is the same one with them.
    """
    content = path.read_bytes()
    if path.name == MANIFEST:
        content = _without_measurements(content)
    return FileHash(path.relative_to(root).as_posix(), hashlib.sha256(content).hexdigest(), len(content))


def _without_measurements(content: bytes) -> bytes:
    try:
        record: Any = json.loads(content)
        record["body"]["measurements"] = []
        # The seal is over the measurements as well.
        record = {name: value for name, value in record.items() if name not in (SEAL, DIGESTS)}
    except (ValueError, KeyError, TypeError):
        return content
    return json.dumps(record, sort_keys=True).encode()


def hashes_of(paths: Sequence[Path], root: Path) -> tuple[FileHash, ...]:
    """Return the hashes of all files at or below ``paths``, in order of path relative to ``root``."""
    files = {one for path in paths for one in ([path] if path.is_file() else path.rglob("*")) if one.is_file()}
    return tuple(file_hash(one, root) for one in sorted(files))
