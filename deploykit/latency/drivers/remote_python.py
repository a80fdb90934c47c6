"""The Python of another machine: which one, whether it has the runtimes, and a temporary environment that has."""

from __future__ import annotations

import importlib.metadata
import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from deploykit.errors import DeviceError
from deploykit.latency.drivers.remote import Remote
from deploykit.vocab import Target

OLDEST = (3, 9)
INSTALL_S = 900.0
# Target → distribution that runs its files; numpy is what the agent itself needs.
RUNTIMES = {Target.ONNX: "onnxruntime", Target.TFLITE: "ai-edge-litert", Target.COREML: "coremltools"}
AGENT_NEEDS = "numpy"
_MARK = "deploykit-python="
_PROBE = f"""
import importlib.metadata, json, platform, sys
found = {{}}
for name in {sorted([AGENT_NEEDS, *RUNTIMES.values()])!r}:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
sys.stdout.write("\\n{_MARK}" + json.dumps([list(sys.version_info[:2]), platform.system(), found]) + "\\n")
"""


@dataclass(frozen=True)
class RemotePython:
    """A Python there: ``packages`` are those of the runtimes that it has, with their versions."""

    program: str
    version: tuple[int, int]
    system: str
    packages: dict[str, str]

    def lacks(self, target: Target) -> str:
        """Return why files of ``target`` cannot be measured with it, or an empty text."""
        if target not in RUNTIMES:
            return f"files of {target} are measured on this machine only"
        if target is Target.COREML and self.system != "Darwin":
            return "Core ML needs macOS"
        missing = [name for name in (AGENT_NEEDS, RUNTIMES[target]) if name not in self.packages]
        return f"not installed there: {', '.join(missing)}; {self.install_command(missing)}" if missing else ""

    def install_command(self, packages: Iterable[str]) -> str:
        """Return the command that adds ``packages`` there."""
        return f"{self.program} -m pip install {' '.join(packages)}"


def find_python(remote: Remote, program: str) -> RemotePython:
    """Return what ``program`` is there.

    Raises:
        DeviceError: there is none, it is too old, or it does not answer.
    """
    done = remote.shell(f"exec {shlex.quote(program)} -", stdin=_PROBE.encode())
    answer = done.stdout.partition(_MARK)[2].partition("\n")[0]
    if not answer:
        raise DeviceError(
            "There is no Python on the machine.",
            where=str(remote.address),
            found=f"{program}: {done.last_line}",
            expected=f"Python {OLDEST[0]}.{OLDEST[1]} or later",
            next_step="name it: --remote-python /path/to/python",
        )
    (major, minor), system, packages = json.loads(answer)
    if (major, minor) < OLDEST:
        raise DeviceError(
            "The Python of the machine is too old.",
            where=f"{remote.address}, {program}",
            found=f"Python {major}.{minor}",
            expected=f"Python {OLDEST[0]}.{OLDEST[1]} or later",
            next_step="name another one: --remote-python /path/to/python",
        )
    return RemotePython(program, (int(major), int(minor)), str(system), dict(packages))


def bootstrap(remote: Remote, base: RemotePython, targets: Iterable[Target]) -> RemotePython:
    """Return a Python in a new environment in the remote folder that has what ``targets`` need.

    The runtimes get the versions that are installed here, so that figures can be compared.

    Raises:
        DeviceError: it cannot be made, or the packages cannot be installed there.
    """
    wanted = [AGENT_NEEDS, *(RUNTIMES[target] for target in dict.fromkeys(targets))]
    program = f"{remote.folder}/environment/bin/python"
    made = remote.shell(f"exec {shlex.quote(base.program)} -m venv {remote.quoted}/environment", timeout_s=INSTALL_S)
    if made.returncode:
        raise _failed(remote, "A temporary environment cannot be made on the machine.", made.text, "venv and pip there")
    command = f"{shlex.quote(program)} -m pip --no-input --disable-pip-version-check install --no-cache-dir"
    # pip unpacks into TMPDIR: that is the folder, so that nothing of it remains elsewhere.
    listed = " ".join(shlex.quote(_as_here(name)) for name in wanted)
    done = remote.shell(f"TMPDIR={remote.quoted} exec {command} {listed}", timeout_s=INSTALL_S)
    if done.returncode:
        raise remote.refused("The runtimes cannot be installed on the machine.", done)
    return find_python(remote, program)


def _as_here(name: str) -> str:
    try:
        return f"{name}=={importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def _failed(remote: Remote, message: str, said: str, expected: str) -> DeviceError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return DeviceError(
        message,
        where=str(remote.address),
        found=" ".join(lines)[:300] or "no message",
        expected=expected,
        next_step="install what it asks for, or install the runtimes there yourself and leave out --bootstrap",
    )
