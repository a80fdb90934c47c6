"""The state of the machine, cheap enough to be read between blocks of runs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_STAT = Path("/proc/stat")
_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")
_POWER = Path("/sys/class/power_supply")
_QUOTA = (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat"))
# Zones that are no processor are often warmer or colder for reasons of their own.
_PROCESSOR_ZONES = ("x86_pkg_temp", "cpu", "soc", "coretemp", "k10temp")


class Watch:
    """Reads the conditions of the cores in ``cores`` (all where it is empty), on the clock ``now_s``."""

    def __init__(self, cores: Sequence[int], now_s: Callable[[], float]) -> None:
        self._cores = set(cores)
        self._now_s = now_s
        self._tick = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 0.01
        self._zones = _processor_zones()
        places = sorted(self._cores) or [0]
        self._frequencies = _existing([_CPU / f"cpu{core}" / "cpufreq" / "scaling_cur_freq" for core in places])
        counters = sorted(_CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
        self._throttles = [path for path in counters if not self._cores or _core_of(path) in self._cores]
        self._quota = next(iter(_existing(_QUOTA)), None)
        self._before: tuple[float, float, float] | None = None

    def read(self, slowly: bool = False) -> dict[str, Any]:
        """Return the fields of ``latency_records.Conditions``; ``slowly`` also what takes a moment to ask for."""
        steal, busy = self._ticks()
        found: dict[str, Any] = {
            "time_s": self._now_s(),
            "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
            "other_load": self._other_load(busy),
            "steal_s": steal,
            "frequency_hz": self._frequency(),
            "temperature_c": self._temperature(),
            "throttled": _sum(self._throttles),
            "quota_throttled": self._quota_throttled(),
            **_faults(),
        }
        if slowly:
            found.update(_battery())
            found["thermal_state"] = _thermal_state()
        return found

    def _ticks(self) -> tuple[float | None, float | None]:
        """Return the seconds stolen from the watched cores, and those in which any core was busy."""
        steal, busy, seen = 0, 0, False
        for line in _text(_STAT).splitlines():
            if not line.startswith("cpu"):
                break
            name, *ticks = line.split()
            if name == "cpu":
                continue
            seen = True
            user, nice, system, _, _, irq, softirq, stolen = (int(one) for one in ticks[:8])
            busy += user + nice + system + irq + softirq
            if not self._cores or int(name[3:]) in self._cores:
                steal += stolen
        return (steal * self._tick, busy * self._tick) if seen else (None, None)

    def _other_load(self, busy: float | None) -> float | None:
        if busy is None:
            return None
        now, own = time.perf_counter(), time.process_time()
        before, self._before = self._before, (now, own, busy)
        if before is None or now - before[0] < 5 * self._tick:
            return None
        others = (busy - before[2]) - (own - before[1])
        return round(max(0.0, others / (now - before[0])), 2)

    def _frequency(self) -> float | None:
        found = [int(text) for path in self._frequencies if (text := _text(path)).isdigit()]
        return 1000.0 * sum(found) / len(found) if found else None

    def _temperature(self) -> float | None:
        found = [int(text) / 1000 for path in self._zones if (text := _text(path)).lstrip("-").isdigit()]
        return round(max(found), 1) if found else None

    def _quota_throttled(self) -> int | None:
        found = re.search(r"^nr_throttled (\d+)", _text(self._quota), re.MULTILINE) if self._quota else None
        return int(found[1]) if found else None


def _faults() -> dict[str, Any]:
    try:
        import resource
    except ImportError:
        return {"major_faults": None, "minor_faults": None, "preempted": None}
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"major_faults": used.ru_majflt, "minor_faults": used.ru_minflt, "preempted": used.ru_nivcsw}


def _battery() -> dict[str, Any]:
    if platform.system() == "Darwin":
        said = _output(["pmset", "-g", "batt"])
        percent = re.search(r"(\d+)%", said)
        on = "Battery Power" in said if percent else None
        return {"battery_percent": float(percent[1]) if percent else None, "on_battery": on}
    for folder in sorted(_POWER.glob("*")):
        if _text(folder / "type") == "Battery" and _text(folder / "scope") != "Device":
            level, status = _text(folder / "capacity"), _text(folder / "status")
            percent_there = float(level) if level.isdigit() else None
            return {"battery_percent": percent_there, "on_battery": status == "Discharging" if status else None}
    return {"battery_percent": None, "on_battery": None}


def _thermal_state() -> str | None:
    if platform.system() != "Darwin":
        return None
    limit = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", _output(["pmset", "-g", "therm"]))
    if limit is None:
        return None
    return "nominal" if limit[1] == "100" else f"speed limited to {limit[1]} %"


def _processor_zones() -> list[Path]:
    zones = sorted(_THERMAL.glob("thermal_zone*"))
    named = [zone for zone in zones if any(word in _text(zone / "type").lower() for word in _PROCESSOR_ZONES)]
    return [zone / "temp" for zone in (named or zones)]


def _core_of(path: Path) -> int:
    return int(path.parts[-3][len("cpu") :])


def _sum(paths: Sequence[Path]) -> int | None:
    found = [int(text) for path in paths if (text := _text(path)).isdigit()]
    return sum(found) if found else None


def _existing(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if path.is_file()]


def _output(command: Sequence[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace").strip()
    except OSError:
        return ""
