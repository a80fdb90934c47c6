"""Phones and tablets that this machine can reach, as the vendors' own programs list them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TIMEOUT_S = 8


@dataclass(frozen=True)
class DeviceState:
    """One way to reach devices: whether any is ready, those found with their state, else what is missing."""

    kind: str
    ready: bool
    found: tuple[str, ...]
    reason: str = ""
    next_step: str = ""


def android_devices(system: str) -> DeviceState:
    """Return the Android devices that ``adb`` lists. ``system`` is as ``platform.system()`` names it."""
    kind = "Android (adb)"
    if shutil.which("adb") is None:
        install = {"Darwin": "brew install android-platform-tools", "Linux": "sudo apt install adb"}
        fallback = "install the Android SDK platform tools"
        return DeviceState(kind, False, (), "adb is not on the PATH", install.get(system, fallback))
    listed = _output(["adb", "devices"])
    if isinstance(listed, DeviceProblem):
        return DeviceState(kind, False, (), listed.reason, "adb kill-server, then try again")
    states = [line.split(maxsplit=1) for line in listed.splitlines() if "\t" in line]
    found = tuple(f"{serial}: {state}" for serial, state in states)
    if any(state == "device" for _, state in states):
        return DeviceState(kind, True, found)
    if any(state == "unauthorized" for _, state in states):
        return DeviceState(kind, False, found, "no device has allowed this machine", "confirm the prompt on its screen")
    reason = "no device is ready" if found else "no device is connected"
    return DeviceState(kind, False, found, reason, "connect one by USB with USB debugging on")


def apple_devices(system: str) -> DeviceState:
    """Return the iPhones and iPads that Xcode lists: on macOS only."""
    kind = "iOS (Xcode)"
    if system != "Darwin":
        return DeviceState(kind, False, (), "needs macOS", "run deploykit on a Mac with Xcode")
    if shutil.which("xcrun") is None:
        return DeviceState(kind, False, (), "Xcode is not installed", "xcode-select --install, and Xcode 15 or later")
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "devices.json"
        problem = _output(["xcrun", "devicectl", "list", "devices", "--json-output", str(listing)])
        if isinstance(problem, DeviceProblem):
            return DeviceState(kind, False, (), problem.reason, "install Xcode 15 or later and open it once")
        found = _apple_names(listing.read_text("utf-8")) if listing.is_file() else ()
    if found:
        return DeviceState(kind, True, found)
    return DeviceState(kind, False, (), "no device is paired", "connect one and trust this Mac on its screen")


def _apple_names(listing: str) -> tuple[str, ...]:
    try:
        devices: list[dict[str, Any]] = json.loads(listing)["result"]["devices"]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(
        f"{device.get('deviceProperties', {}).get('name', 'unnamed')}: "
        f"{device.get('hardwareProperties', {}).get('marketingName', 'unknown model')}, "
        f"{device.get('connectionProperties', {}).get('pairingState', 'unknown state')}"
        for device in devices
    )


@dataclass(frozen=True)
class DeviceProblem:
    """Why a vendor's program gave no answer."""

    reason: str


def _output(command: list[str]) -> str | DeviceProblem:
    name = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return DeviceProblem(f"{name} did not answer within {_TIMEOUT_S} s")
    except OSError as error:
        return DeviceProblem(f"{name} cannot be started: {error.strerror or error}")
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        return DeviceProblem(f"{name} failed: {last[:200]}")
    return done.stdout
