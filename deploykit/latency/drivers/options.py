"""What a user may choose about a device, besides how long to measure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# The program that the adb driver runs on the device, where no option names it.
TOOL_VARIABLE = "DEPLOYKIT_BENCHMARK_MODEL"


@dataclass(frozen=True)
class DeviceOptions:
    """Choices for devices; a driver leaves alone what does not concern it.

    ``threads`` are measured one after the other in one run; ``accelerators`` are the driver's own words, its default
    where there are none. ``benchmark_model``: LiteRT's tool, built for the Android device. ``bootstrap``: make a
    temporary environment where the Python of the other machine lacks the runtime. ``remote_python``: which one that
    is. ``development_team``: the Apple team that signs the app for an iPhone or iPad.
    """

    threads: tuple[int, ...] = (1,)
    accelerators: tuple[str, ...] = ()
    benchmark_model: Path | None = None
    bootstrap: bool = False
    remote_python: str = "python3"
    development_team: str | None = None


def benchmark_model_path(given: Path | None, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return ``given``, else the path in the environment, else None."""
    named = environment.get(TOOL_VARIABLE)
    return given or (Path(named) if named else None)
