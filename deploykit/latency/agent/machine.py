"""What the machine is: words and numbers that name neither its host nor its user."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_CPU = Path("/sys/devices/system/cpu")
_DMI = Path("/sys/class/dmi/id/product_name")
_VIRTUAL = ("kvm", "virtual", "vmware", "qemu", "bochs", "xen", "hvm", "google compute", "firecracker")


def facts() -> dict[str, Any]:
    """Return the fields of ``latency_records.Machine``; None for what the system does not say."""
    cpuinfo = _text(_CPUINFO)
    processor, cores = processor_name(cpuinfo), len(os.sched_getaffinity(0)) if _pins() else os.cpu_count() or 1
    return {
        "name": key_of(processor, cores, platform.system()),
        "processor": processor,
        "architecture": platform.machine(),
        "system": _system(),
        "cores": cores,
        "physical_cores": _physical_cores(cpuinfo),
        "memory_bytes": _memory_bytes(),
        "virtual": _virtual(cpuinfo),
        "governor": _text(_CPU / "cpu0" / "cpufreq" / "scaling_governor") or None,
        "turbo": _turbo(),
    }


def key_of(processor: str, cores: int, system: str) -> str:
    """Return the machine's key among results: lower case, digits and dashes."""
    plain = re.sub(r"\((r|tm|c)\)|@.*|\b(cpu|processor)\b", " ", processor.lower())
    return re.sub(r"[^a-z0-9]+", "-", f"{plain} {cores} cores {system.lower()}").strip("-")


def processor_name(cpuinfo: str) -> str:
    """Return the processor's name as the system gives it (``/proc/cpuinfo`` on Linux), else its architecture."""
    found = ""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("model name", "hardware") and value.strip():
            found = " ".join(value.split())
            break
    if not cpuinfo and platform.system() == "Darwin":
        found = _sysctl("machdep.cpu.brand_string")
    return found or platform.processor() or platform.machine()


def _system() -> str:
    version = platform.mac_ver()[0] or platform.release()
    found = re.match(r"\d+(\.\d+)?", version)
    return f"{platform.system()} {found[0] if found else ''}".strip()


def _pins() -> bool:
    return hasattr(os, "sched_getaffinity")


def _physical_cores(cpuinfo: str) -> int | None:
    if platform.system() == "Darwin":
        return _number(_sysctl("hw.physicalcpu"))
    found = set()
    physical = ""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "physical id":
            physical = value.strip()
        elif key.strip() == "core id":
            found.add((physical, value.strip()))
    return len(found) or None


def _memory_bytes() -> int | None:
    if platform.system() == "Darwin":
        return _number(_sysctl("hw.memsize"))
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _virtual(cpuinfo: str) -> bool | None:
    if platform.system() == "Darwin":
        found = _number(_sysctl("kern.hv_vmm_present"))
        return None if found is None else bool(found)
    if re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE):
        return True
    product = _text(_DMI).lower()
    if product:
        return any(word in product for word in _VIRTUAL)
    return False if platform.machine().lower() in ("x86_64", "amd64") and cpuinfo else None


def _turbo() -> bool | None:
    off = _text(_CPU / "intel_pstate" / "no_turbo")
    if off:
        return off == "0"
    boost = _text(_CPU / "cpufreq" / "boost")
    return boost == "1" if boost else None


def _sysctl(name: str) -> str:
    try:
        done = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
