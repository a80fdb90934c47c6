"""What this machine is, in words that name neither its host nor its user."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")


def cpu_model() -> str:
    """Return the processor's name as the system gives it, or its architecture where it gives none."""
    found = ""
    if _CPUINFO.is_file():
        found = _model_in(_CPUINFO.read_text("utf-8", errors="replace"))
    elif platform.system() == "Darwin":
        found = _sysctl("machdep.cpu.brand_string")
    return found or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return the number of logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def device_name() -> str:
    """Return processor, usable cores, system and architecture as one line."""
    cores = usable_cores()
    plural = "" if cores == 1 else "s"
    return f"{cpu_model()}, {cores} core{plural}, {platform.system()} {platform.machine()}"


def _model_in(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware") and value.strip():
            return " ".join(value.split())
    return ""


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()
