"""One pipeline at a time in a folder: a lock that the system gives up with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from deploykit.errors import ArtifactError


@contextmanager
def locked(path: Path, folder: Path) -> Iterator[None]:
    """Hold the lock at ``path`` for ``folder``; raises ArtifactError where another process holds it, or none can be.

    A process that ends in whichever way, ``kill -9`` included, holds it no longer: there is no stale lock to remove.
    """
    with _opened(path, folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip()
            raise ArtifactError(
                "Another pipeline works in this folder.",
                where=str(folder),
                found=f"process {holder}" if holder else "a process that has just begun",
                expected="one pipeline at a time in a folder",
                next_step="wait for it, or give this one its own --output-dir",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _opened(path: Path, folder: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a+", encoding="utf-8")
    except OSError as error:
        raise ArtifactError(
            "The output folder cannot be written.",
            where=str(folder),
            found=error.strerror or str(error),
            expected="a folder that can be created and written to",
            next_step="choose another with --output-dir",
        ) from error
