"""The process that runs two things against each other, as seen by the one that judges them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from deploykit import errors
from deploykit.comparison_records import Round
from deploykit.errors import ArtifactError, DeploykitError
from deploykit.latency.contender import Contender, Opened
from deploykit.latency_records import Conditions

_MODULE = "deploykit.latency.rounds"


class Duel:
    """A and B in a process of their own, opened and tried; it ends with this object.

    ``affinity`` are the cores that both run on; without any they run where the system puts them.

    Raises DeploykitError: what opening or running either of them raises there. ArtifactError where one ends the
    process, now or later. ``conditions`` are those of the machine after each round.
    """

    def __init__(self, first: Contender, second: Contender, threads: int, affinity: Sequence[int]) -> None:
        self._names = [first.name]
        self.conditions: list[Conditions] = []
        # Read only where the process ends on its own; it is closed with this object.
        self._said = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-W", "ignore", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                # Read once, at the import of what brings its own threads.
                "OMP_NUM_THREADS": str(threads),
            },
        )
        self.close = weakref.finalize(self, _end, self._process, self._said)
        try:
            self.opened = self.open(first, second, threads, affinity)
        except BaseException:
            self.close()
            raise

    def open(self, first: Contender, second: Contender, threads: int, affinity: Sequence[int]) -> tuple[Opened, Opened]:
        """Return what the two are that run from now on; as the constructor does it for the first two."""
        asked = [
            {
                "name": one.name,
                "path": None if one.path is None else str(one.path.resolve()),
                "recipe": one.recipe,
                "photos": [str(photo.resolve()) for photo in one.photos],
            }
            for one in (first, second)
        ]
        self._send(ask="open", contenders=asked, threads=threads, affinity=list(affinity))
        while True:
            message = self._receive()
            if "opened" in message:
                self._names = [first.name, second.name]
                one, two = (
                    Opened(tuple(map(tuple, found["input_shapes"])), found["runtime"]) for found in message["opened"]
                )
                return one, two
            self._names = [message["opening"]]

    def rehearse(self, max_seconds: float) -> None:
        """Run one round that does not count; ``max_seconds`` from now on is what all rounds may take."""
        self._send(ask="rehearse", max_seconds=max_seconds)
        self._receive()

    def run(self, until_s: float, on_round: Callable[[Round], None]) -> None:
        """Give ``on_round`` the rounds that end before ``until_s`` seconds after the rehearsal began."""
        self._send(ask="run", until_s=until_s)
        while "round" in (message := self._receive()):
            self.conditions.append(Conditions(**message["round"]["conditions"]))
            on_round(_round(message["round"]))

    def save_inputs(self, folder: Path) -> tuple[Path, Path]:
        """Return the .npz files in ``folder`` with the first inputs of both; empty ones for PyTorch eager."""
        one, two = folder / "0.npz", folder / "1.npz"
        self._send(ask="save", paths=[str(one), str(two)])
        self._receive()
        return one, two

    def _send(self, **question: Any) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._ended() from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._ended()
        message: dict[str, Any] = json.loads(line)
        if "error" in message:
            parts = message["error"]
            kind = getattr(errors, parts.pop("kind"))
            found: DeploykitError = kind(parts.pop("message"), **parts)
            raise found
        return message

    def _ended(self) -> ArtifactError:
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self._said.seek(0)
        last = self._said.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return ArtifactError(
            "The process that ran the two ended on its own.",
            where=" or ".join(self._names),
            found=": ".join([how, *(line[:300] for line in last)]),
            expected="files that their runtime loads and runs",
            next_step="run each of them alone with: deploykit bench",
        )

    def __enter__(self) -> Self:
        """Return the process, ready to run."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()


def _round(body: dict[str, Any]) -> Round:
    return Round(
        order=tuple(body["order"]),
        setup_s=body["setup_s"],
        starts_s=tuple(body["starts_s"]),
        samples_s=tuple(tuple(tuple(row) for row in block) for block in body["samples_s"]),
        away_s=tuple(tuple(tuple(row) for row in block) for block in body["away_s"]),
        repeats=body["repeats"],
    )


def _end(process: subprocess.Popen[bytes], said: IO[bytes]) -> None:
    # It may be in the middle of a long inference, and has nothing to tidy up.
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, said):
        if stream is not None:
            try:
                stream.close()
            except OSError:
                # What was written last had no reader any more.
                continue
