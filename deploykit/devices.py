"""What can be measured from this machine: drivers, the devices that they reach now, and what is missing."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from deploykit.errors import UsageError
from deploykit.latency.drivers.options import TOOL_VARIABLE, benchmark_model_path
from deploykit.latency.drivers.reachable import android_devices, apple_devices
from deploykit.latency.drivers.table import DRIVERS, Driver
from deploykit.latency.machine import device_name
from deploykit.web import INSTALL, missing_packages
from deploykit.web.chromium import NAMES, VARIABLE, find_chromium
from deploykit.web.page import every_runtime_file, page_files


@dataclass(frozen=True)
class ReachableDevices:
    """One driver here and now. ``name_it`` is what ``--device`` takes; ``found`` are devices with their state.

    ``run_on_hardware`` is False for a driver that no device of ours has seen; ``evidence`` says what it was tested
    against. ``missing`` and ``next_step`` are empty where nothing is in the way.
    """

    driver: Driver
    name_it: str
    measures: str
    accelerators: tuple[str, ...]
    ready: bool
    found: tuple[str, ...]
    run_on_hardware: bool
    evidence: str
    missing: str = ""
    next_step: str = ""


def list_devices(benchmark_model: Path | None = None) -> tuple[ReachableDevices, ...]:
    """Return every driver with what it reaches; nothing is imported or changed for it.

    Devices are asked for through ``adb`` and ``xcrun`` where these are on the PATH, a few seconds at most.
    ``benchmark_model`` is LiteRT's tool for Android, else the one that the environment names.
    """
    system = platform.system()
    return (
        _row(Driver.HOST, True, (device_name(),)),
        _ssh(),
        _android(system, benchmark_model_path(benchmark_model)),
        _apple(system),
        _browser(),
    )


def _row(
    driver: Driver, ready: bool, found: tuple[str, ...] = (), missing: str = "", next_step: str = ""
) -> ReachableDevices:
    row = DRIVERS[driver]
    return ReachableDevices(
        driver=driver,
        name_it=row.name_it,
        measures=row.measures,
        accelerators=row.accelerators,
        ready=ready,
        found=found,
        run_on_hardware=row.run_on_hardware,
        evidence=row.evidence,
        missing=missing,
        next_step=next_step,
    )


def _ssh() -> ReachableDevices:
    if shutil.which("ssh") is None:
        return _row(Driver.SSH, False, (), "ssh is not on the PATH", "install an OpenSSH client")
    return _row(Driver.SSH, True, ("any machine that lets you in with a key",))


def _browser() -> ReachableDevices:
    missing = missing_packages()
    if missing:
        return _row(Driver.BROWSER, False, (), f"not installed: {', '.join(missing)}", INSTALL)
    try:
        page_files(every_runtime_file())
    except UsageError as error:
        return _row(Driver.BROWSER, False, (), error.message.rstrip("."), error.next_step or "")
    found = find_chromium()
    if found is None:
        step = f"install Chromium, or {VARIABLE}=/its/path; browser:lan needs a phone alone"
        return _row(Driver.BROWSER, False, ("a phone of the network",), f"no {', '.join(NAMES)} on the PATH", step)
    return _row(Driver.BROWSER, True, (found.name, "a phone of the network"))


def _android(system: str, tool: Path | None) -> ReachableDevices:
    state = android_devices(system)
    if not state.ready:
        return _row(Driver.ADB, False, state.found, state.reason, state.next_step)
    if tool is None:
        step = f"build LiteRT's benchmark_model for the device, then --benchmark-model or {TOOL_VARIABLE}"
        return _row(Driver.ADB, False, state.found, "no benchmark_model", step)
    if not tool.is_file():
        return _row(Driver.ADB, False, state.found, "no benchmark_model at its path", f"{tool} has to be a file")
    return _row(Driver.ADB, True, state.found)


def _apple(system: str) -> ReachableDevices:
    state = apple_devices(system)
    if state.ready and shutil.which("devicectl") is None:
        # coremltools looks for the program itself, not through xcrun.
        step = 'PATH="$PATH:$(xcode-select -p)/usr/bin"'
        return _row(Driver.IOS, False, state.found, "devicectl is not on the PATH", step)
    return _row(Driver.IOS, state.ready, state.found, state.reason, state.next_step)
