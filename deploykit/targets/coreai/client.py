"""A process of its own that loads one Core AI asset, and answers questions about it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from deploykit.targets.base import Array
from deploykit.targets.coreai.message import Arrays, Body, receive, send
from deploykit.targets.coreai.program import refused, require_whole
from deploykit.targets.table import require
from deploykit.vocab import Target

_MODULE = "deploykit.targets.coreai.child"
_ERROR = re.compile(r"error: *(.+)", re.IGNORECASE)
_PATIENCE_S = 5.0


class Child:
    """The asset at ``path`` in a process of its own, which ends with this object.

    Raises ArtifactError where the asset is not whole, and from ``ask`` where the process refuses it or is ended by it;
    TargetError where Core AI's packages are missing.
    """

    def __init__(self, path: Path) -> None:
        require(Target.COREAI)
        require_whole(path)
        self._path = path
        # The runtime writes what it compiled to a temporary folder, and leaves it there when it is ended.
        folder = tempfile.TemporaryDirectory(prefix="deploykit-")
        self._said = Path(folder.name) / "stderr"
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-m", _MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TMPDIR": folder.name},
            )
        self.close = weakref.finalize(self, _end, self._process, folder)

    def ask(self, question: str, arrays: Mapping[str, Array] | None = None, **arguments: Any) -> tuple[Body, Arrays]:
        """Return the answer to ``question`` about the asset. Raises ArtifactError where there is none."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, {"ask": question, "path": str(self._path.resolve()), **arguments}, arrays)
            body, found = receive(self._process.stdout)
        except (OSError, EOFError) as error:
            raise refused(self._path, self._why_it_ended(), "a sound asset, of a version that is known here") from error
        if "error" in body:
            raise refused(self._path, str(body["error"]), "an asset that the Core AI runtime of this machine runs")
        return body, found

    def _why_it_ended(self) -> str:
        code = self._process.wait()
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        reason = _ERROR.search(self._said.read_text("utf-8", "replace"))
        return f"Core AI's compiler stopped with {name}" + (f": {reason[1]}" if reason else "")

    def __enter__(self) -> Self:
        """Return the process, ready to be asked."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()


def _end(process: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                # What was written last had no reader any more.
                continue
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    folder.cleanup()
