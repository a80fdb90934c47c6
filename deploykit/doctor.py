"""What this machine has: targets, their packages and runtimes, and the devices that it can reach."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from deploykit.latency.drivers.reachable import DeviceState, android_devices, apple_devices
from deploykit.latency.machine import cpu_model, usable_cores
from deploykit.targets.table import TARGETS, TargetRow
from deploykit.version import __version__
from deploykit.vocab import Target

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"
_PIN = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*==\s*([^\s;#]+)")


@dataclass(frozen=True)
class PackageState:
    """One distribution: the version installed, if any, and the version that deploykit was tested with, if known."""

    distribution: str
    installed: str | None
    tested: str | None

    @property
    def differs(self) -> bool:
        """Whether another version is installed than was tested; a build such as ``+cpu`` is the same version."""
        return None not in (self.installed, self.tested) and _public(self.installed) != _public(self.tested)


@dataclass(frozen=True)
class TargetState:
    """One target: whether its files can be written here, what runs them here, and what to do if something lacks."""

    target: Target
    ready: bool
    packages: tuple[PackageState, ...]
    runtime: str
    measurable: bool
    reason: str = ""
    next_step: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What ``deploykit doctor`` found. ``differences`` are the installed packages of another version than tested."""

    deploykit: str
    python: str
    system: str
    cpu: str
    cores_usable: int
    cores_physical: int | None
    memory_bytes: int
    torch: PackageState
    targets: tuple[TargetState, ...]
    devices: tuple[DeviceState, ...]
    differences: tuple[PackageState, ...]
    constraints_found: bool


def diagnose(constraints: Path = CONSTRAINTS) -> Diagnosis:
    """Return what is here, without importing any of it; the tested versions come from ``constraints`` if it exists.

    Devices are asked for through ``adb`` and ``xcrun`` where these are on the PATH, a few seconds at most.
    """
    tested = read_pins(constraints)
    system = platform.system()
    pinned = (_package(name, tested) for name in tested)
    return Diagnosis(
        deploykit=__version__,
        python=platform.python_version(),
        system=f"{system} {platform.release()} {platform.machine()}",
        cpu=cpu_model(),
        cores_usable=usable_cores(),
        cores_physical=psutil.cpu_count(logical=False),
        memory_bytes=psutil.virtual_memory().total,
        torch=_package("torch", tested),
        targets=tuple(_target(row, system, tested) for row in TARGETS.values()),
        devices=(android_devices(system), apple_devices(system)),
        differences=tuple(package for package in pinned if package.differs),
        constraints_found=bool(tested),
    )


def read_pins(constraints: Path) -> dict[str, str]:
    """Return normalised name → version of every ``name==version`` line; empty where there is no such file."""
    if not constraints.is_file():
        return {}
    matches = map(_PIN.match, constraints.read_text("utf-8").splitlines())
    return {_normal(match[1]): match[2] for match in matches if match}


def _target(row: TargetRow, system: str, tested: Mapping[str, str]) -> TargetState:
    packages = tuple(_package(name, tested) for name in row.packages.values())
    missing = row.missing()
    if missing:
        reason = f"not installed: {', '.join(missing)}"
        return TargetState(row.target, False, packages, "none", False, reason, row.install_command())
    if row.target is Target.COREML:
        return _core_ml(packages, system)
    if row.target is Target.COREAI:
        return _core_ai(packages)
    return TargetState(row.target, True, packages, f"{row.runtime} (CPU)", True)


def _core_ml(packages: tuple[PackageState, ...], system: str) -> TargetState:
    if system == "Darwin":
        return TargetState(Target.COREML, True, packages, "Core ML (CPU)", True)
    return TargetState(
        Target.COREML,
        True,
        packages,
        "reference interpreter",
        False,
        "files are written and verified here; Core ML itself, and its latency, need macOS",
        "run deploykit bench on a Mac",
    )


def _core_ai(packages: tuple[PackageState, ...]) -> TargetState:
    return TargetState(
        Target.COREAI,
        True,
        packages,
        "Apple's Core AI runtime",
        False,
        "files are written and verified here, each in a process of its own; that says nothing about their speed",
    )


def _package(name: str, tested: Mapping[str, str]) -> PackageState:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        installed = None
    return PackageState(name, installed, tested.get(_normal(name)))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _public(version: str | None) -> str:
    return (version or "").partition("+")[0]
