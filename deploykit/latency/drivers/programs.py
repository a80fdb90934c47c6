"""Run other programs (adb, ssh) so that nothing of them outlives a timeout or Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from deploykit.errors import DeviceError

ADB = "adb"
_GRACE_S = 2.0


@dataclass(frozen=True)
class Ran:
    """What a program returned and wrote."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Everything that it wrote, errors last."""
        return f"{self.stdout}\n{self.stderr}".strip()

    @property
    def last_line(self) -> str:
        """The last line that says something, of the errors where there are any."""
        lines = [line.strip() for line in (self.stderr.strip() or self.stdout.strip()).splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"no message, return code {self.returncode}"


class TimedOutError(DeviceError):
    """A program that gave no answer in time; what it wrote until then is in ``ran``."""

    def __init__(self, message: str, ran: Ran, **rows: str | None) -> None:
        self.ran = ran
        super().__init__(message, **rows)


def run(command: Sequence[str], *, timeout_s: float, stdin: str | bytes = b"") -> Ran:
    """Return what ``command`` wrote; it and its children are gone afterwards, whatever happened.

    Raises:
        DeviceError: the program is not there or cannot be started.
        TimedOutError: it took longer than ``timeout_s``.
    """
    process = start(command)
    data = stdin.encode() if isinstance(stdin, str) else stdin
    try:
        out, err = process.communicate(data, timeout=timeout_s)
    except subprocess.TimeoutExpired as error:
        raise TimedOutError(
            f"{command[0]} gave no answer in time.",
            Ran(-1, *stop(process)),
            where=" ".join(command[:4]),
            found=f"nothing more within {timeout_s:.0f} s",
            expected="an answer",
        ) from error
    except BaseException:
        stop(process)
        raise
    return Ran(process.returncode, _text(out), _text(err))


def require_program(name: str) -> None:
    """Raise DeviceError unless the program ``name`` is on the PATH."""
    if shutil.which(name) is None:
        raise DeviceError(
            f"{name} is not on the PATH.",
            found="no such program",
            expected=f"{name}, which reaches the device",
            next_step="deploykit devices says how to install it",
        )


def start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """Return ``command`` running in a session of its own, so that Ctrl-C reaches it only through us."""
    require_program(command[0])
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(list(command), stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
    except OSError as error:
        raise DeviceError(f"{command[0]} cannot be started.", found=error.strerror or str(error)) from error


def stop(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """End ``process`` and everything that it started; return what it wrote to stdout and stderr and nobody read."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            continue
        except (ProcessLookupError, PermissionError):
            pass
        break
    try:
        out, err = process.communicate(timeout=_GRACE_S)
    except (subprocess.TimeoutExpired, ValueError):
        # Something that left its session still holds the pipe, or the pipe was read and closed elsewhere.
        return "", ""
    return _text(out), _text(err)


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", errors="replace").replace("\r\n", "\n")
