"""One Android device, reached through ``adb``: found by its serial number, asked, given files, cleaned up."""

from __future__ import annotations

import os
import re
import secrets
import shlex
from pathlib import Path

from deploykit.errors import DeviceError
from deploykit.latency.drivers.programs import ADB, Ran, TimedOutError, run

# The one folder of a phone in which its shell may both write and run programs.
ROOM = "/data/local/tmp"
ASK_S = 30.0
PUSH_S = 600.0
_MARK = "deploykit-rc="
_LISTED = re.compile(
    r"^(\S+)\s+(device|offline|unauthorized|authorizing|recovery|sideload|bootloader|host|no permissions.*)$", re.M
)
_SERIAL = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._:\[\]%-]*$")
# What adb says of each state, as part of its messages, and what the user can do.
_STATES = (
    ("unauthorized", "the device has not allowed this machine", "unlock it and confirm the prompt about USB debugging"),
    (
        "authorizing",
        "the device has not allowed this machine yet",
        "unlock it and confirm the prompt about USB debugging",
    ),
    ("offline", "the device is offline", "reconnect its cable, or: adb reconnect"),
    ("no permissions", "this user may not use the device's USB port", "see developer.android.com/tools/device"),
)
_LOST = re.compile(
    r"no devices/emulators found|device '[^']*' not found|error: closed|device not found|protocol fault|"
    r"failed to read copy response|couldn't read from device|device still|connection reset|transport.*closed|EOF",
    re.IGNORECASE,
)
_FULL = re.compile(r"no space left on device|ENOSPC", re.IGNORECASE)


class LostError(DeviceError):
    """A device that was there and no longer is."""


class Phone:
    """An Android device that is ready; ``folder`` is the one folder that is made on it, and removed by ``clean``."""

    def __init__(self, serial: str) -> None:
        self.serial = serial
        self.folder = f"{ROOM}/deploykit-{secrets.token_hex(6)}"
        self._made = False

    def shell(self, script: str, *, timeout_s: float = ASK_S) -> Ran:
        """Return what ``script`` wrote on the device and its own return code.

        Raises:
            LostError: the connection ended before the script did.
            TimedOutError: nothing more within ``timeout_s``.
        """
        # Old versions of the protocol carry no return code, so that the script prints its own.
        done = run([ADB, "-s", self.serial, "shell", f"{script}\nrc=$?; echo; echo {_MARK}$rc"], timeout_s=timeout_s)
        text, mark, code = done.stdout.rpartition(_MARK)
        if not mark or not code.strip().isdigit():
            raise self._lost(done)
        return Ran(int(code), text.rstrip("\n"), done.stderr)

    def make_folder(self) -> None:
        """Make the folder on the device."""
        self._made = True
        done = self.shell(f"mkdir {self.folder}")
        if done.returncode:
            raise self._refused("A folder cannot be made on the device.", done, self.folder)

    def push(self, source: Path, name: str, *, program: bool = False, timeout_s: float = PUSH_S) -> str:
        """Return where the copy of ``source`` lies on the device, complete; a ``program`` can be run there.

        Raises:
            DeviceError: no space is left there, or it does not take the file.
            LostError: the connection ended.
        """
        target = f"{self.folder}/{name}"
        # Old versions return 0 for a push that failed: the size on the device decides.
        done = run([ADB, "-s", self.serial, "push", str(source.resolve()), target], timeout_s=timeout_s)
        if _FULL.search(done.text):
            raise DeviceError(
                "No space is left on the device.",
                where=f"{self.serial}:{self.folder}",
                found=_line(done.text, _FULL),
                expected=f"{source.stat().st_size} bytes for {source.name}",
                next_step="free some storage on the device, and try again",
            )
        if done.returncode and _LOST.search(done.text):
            raise self._lost(done)
        allow = f"chmod 700 {target}; " if program else ""
        size = self.shell(f"{allow}stat -c %s {target} 2>/dev/null || wc -c < {target}")
        if size.stdout.strip() != str(source.stat().st_size):
            raise self._refused(f"The device did not take {source.name}.", done, target)
        return target

    def clean(self) -> str:
        """Remove the folder and what runs in it; return what could not be removed, or an empty text."""
        if not self._made:
            return ""
        try:
            # The number of a program that still runs stands in the file pid.
            end = f"test -f {self.folder}/pid && kill $(cat {self.folder}/pid)"
            done = self.shell(f"{end}; rm -rf {self.folder}; test ! -e {self.folder}")
        except DeviceError:
            return f"remove it when the device is back: adb shell rm -rf {self.folder}"
        if done.returncode:
            return f"adb shell rm -rf {self.folder} failed: {done.last_line}"
        self._made = False
        return ""

    def _lost(self, done: Ran) -> DeviceError:
        for state, found, step in _STATES:
            if state in done.text:
                return DeviceError(
                    "The device cannot be used.", where=self.serial, found=found, expected="device", next_step=step
                )
        return LostError(
            "The device was lost.",
            where=self.serial,
            # Why it ended is kept in records, where its serial number has no place.
            found=done.last_line.replace(self.serial, "the device"),
            expected="a connection that lasts until the end",
            next_step="check its cable, and that it does not go to sleep: adb devices",
        )

    def _refused(self, message: str, done: Ran, where: str) -> DeviceError:
        return DeviceError(
            message, where=f"{self.serial}:{where}", found=done.last_line, expected="room and permission"
        )


def find_phone(serial: str | None) -> Phone:
    """Return the device of ``serial``, or the only one there is (``ANDROID_SERIAL`` chooses, as it does for adb).

    Raises:
        DeviceError: adb is missing or silent; no device, several without a serial, or one that is not ready.
    """
    if serial is not None and not _SERIAL.match(serial):
        raise DeviceError(
            "This is no serial number of a device.",
            found=shlex.quote(serial),
            expected="letters, digits and . : _ -, as adb devices prints them",
        )
    states = list_phones()
    wanted = serial or os.environ.get("ANDROID_SERIAL") or None
    if wanted is None and len(states) > 1:
        raise DeviceError(
            "Several devices are connected.",
            found=", ".join(f"{name} ({state})" for name, state in states.items()),
            expected="one, or its serial number",
            next_step=f"name it: --device adb:{next(iter(states))}",
        )
    if not states or (wanted is not None and wanted not in states):
        raise DeviceError(
            "No Android device is connected." if not states else "This device is not connected.",
            where=wanted,
            found=", ".join(states) or "an empty list of devices",
            expected="a device with USB debugging on",
            next_step="connect it, unlock it, and look at: adb devices",
        )
    name = wanted or next(iter(states))
    if states[name] != "device":
        found, step = next(((f, s) for state, f, s in _STATES if states[name].startswith(state)), (states[name], None))
        raise DeviceError("The device cannot be used.", where=name, found=found, expected="device", next_step=step)
    return Phone(name)


def list_phones() -> dict[str, str]:
    """Return serial → state of the devices that ``adb devices`` lists.

    Raises:
        DeviceError: adb is missing, fails or is silent.
    """
    try:
        done = run([ADB, "devices"], timeout_s=ASK_S)
    except TimedOutError as error:
        raise DeviceError(
            "adb gave no answer.", found=f"nothing within {ASK_S:.0f} s", next_step="adb kill-server, then try again"
        ) from error
    if done.returncode:
        raise DeviceError("adb failed.", found=done.last_line, next_step="adb kill-server, then try again")
    listing = done.stdout.partition("List of devices attached")[2]
    return dict(_LISTED.findall(listing))


def _line(text: str, pattern: re.Pattern[str]) -> str:
    return next((line.strip()[:300] for line in text.splitlines() if pattern.search(line)), text[:300])
