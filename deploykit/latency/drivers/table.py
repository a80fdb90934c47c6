"""The drivers, as data, and the one call that measures on whichever device a name stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.errors import UsageError
from deploykit.latency.drivers.ssh_address import SCHEME

if TYPE_CHECKING:
    from deploykit.latency.drivers.options import DeviceOptions
    from deploykit.latency.measure import Protocol
    from deploykit.latency.subjects import Subject
    from deploykit.latency_records import Benchmark
    from deploykit.recipe import Recipe


class Driver(StrEnum):
    """What measures on one kind of device."""

    HOST = "host"
    SSH = "ssh"
    ADB = "adb"
    IOS = "ios"
    BROWSER = "browser"


@dataclass(frozen=True)
class DriverRow:
    """One driver: how ``--device`` names its devices, what it measures, with which accelerators (the first is taken
    where none is named), and what it was tested against. ``run_on_hardware``: whether a device of ours ever ran it.
    """

    driver: Driver
    name_it: str
    measures: str
    accelerators: tuple[str, ...]
    run_on_hardware: bool
    evidence: str


DRIVERS: dict[Driver, DriverRow] = {
    Driver.HOST: DriverRow(
        Driver.HOST,
        "host",
        "ONNX, TFLite, Core ML on macOS, PyTorch",
        ("cpu",),
        True,
        "for real, on every run of the tests",
    ),
    Driver.SSH: DriverRow(
        Driver.SSH,
        "ssh://user@host[:port]",
        "ONNX and TFLite, Core ML on macOS",
        ("cpu", "all", "cpu+gpu", "cpu+neural-engine"),
        True,
        "for real, against an OpenSSH server on the loopback address",
    ),
    Driver.ADB: DriverRow(
        Driver.ADB,
        "adb[:serial]",
        "TFLite",
        ("cpu", "cpu-without-xnnpack", "gpu"),
        False,
        "tested against a stand-in for adb that replays public logs",
    ),
    Driver.IOS: DriverRow(
        Driver.IOS,
        "ios[:name]",
        "Core ML packages with tensor inputs, from a Mac",
        ("all", "cpu", "cpu+gpu", "cpu+neural-engine"),
        False,
        "tested against coremltools' own classes and signatures",
    ),
    Driver.BROWSER: DriverRow(
        Driver.BROWSER,
        "browser, browser:lan",
        "ONNX and TFLite in WebAssembly, WebGPU and WebNN: a browser here, or that of a phone",
        ("wasm", "webgpu", "webnn"),
        True,
        "for real, in headless Chromium with WebAssembly; never on a phone or with WebGPU or WebNN by us",
    ),
}


def driver_of(device: str) -> tuple[Driver, str | None]:
    """Return the driver that ``device`` names, and which of its devices: None for the only one, or this machine.

    Raises:
        UsageError: no driver has such a name.
    """
    if device.startswith(SCHEME):
        return Driver.SSH, device
    name, mark, rest = device.partition(":")
    if name == Driver.HOST and not mark:
        return Driver.HOST, None
    if name in (Driver.ADB, Driver.IOS, Driver.BROWSER) and (rest or not mark):
        return Driver(name), rest or None
    raise UsageError(
        "There is no such device.",
        found=ascii(device),
        expected=", ".join(row.name_it for row in DRIVERS.values()),
        next_step="deploykit devices lists what is there",
    )


def measure_on_device(
    device: str,
    subjects: Sequence[Subject],
    protocol: Protocol,
    options: DeviceOptions,
    *,
    recipe: Recipe | None = None,
    photos: Sequence[Path] = (),
    report: Callable[[str], None] | None = None,
) -> Benchmark:
    """Return what ``device``, another than this machine and no browser, measured of ``subjects``.

    Inputs are made as for this machine: ``photos`` or a synthetic portrait through the recipe in the manifest
    (``recipe`` for a file without one), else uniform values. Where the device is lost, time runs out or Ctrl-C comes,
    what was measured until then is returned with ``complete`` False; the device is cleaned up in every case.

    Raises:
        UsageError: no such device or accelerator, no file, or the device is this machine or a browser.
        DeviceError: nothing was measured, and the user can change that.
        ArtifactError: a file that cannot be read.
    """
    driver, which = driver_of(device)
    if driver in (Driver.HOST, Driver.BROWSER):
        raise UsageError("host is this machine itself, and a browser has a page.", found=device, expected="a device")
    if not subjects:
        raise UsageError(
            "There is nothing to measure on the device.",
            found="no exported file",
            expected="files to measure, or a folder of artifacts",
            next_step="deploykit export",
        )
    from deploykit.latency.drivers.feeds import make_feeds
    from deploykit.latency.drivers.outcome import require_measured

    feeds = make_feeds(subjects, recipe, photos)
    if driver is Driver.SSH:
        from deploykit.latency.drivers.ssh import measure_over_ssh

        result = measure_over_ssh(device, subjects, protocol, options, feeds=feeds, report=report)
    elif driver is Driver.ADB:
        from deploykit.latency.drivers.adb import measure_on_android

        result = measure_on_android(which, subjects, protocol, options, feeds=feeds, report=report)
    else:
        from deploykit.latency.drivers.ios import measure_on_ios

        result = measure_on_ios(which, subjects, protocol, options, feeds=feeds, report=report)
    return require_measured(result)
