"""What Android says of itself: properties, thermal state and battery, as its own commands print them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from deploykit.latency_records import Conditions, Machine

# PowerManager.THERMAL_STATUS_*; from moderate on the system slows itself down.
THERMAL_STATES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
THROTTLED_FROM = 2
# Sections of one answer, told apart by lines that none of the commands prints.
FACTS = ("properties", "cores", "memory", "governor")
FACTS_SCRIPT = """echo '#properties'; getprop
echo '#cores'; cat /sys/devices/system/cpu/present
echo '#memory'; head -n 1 /proc/meminfo
echo '#governor'; cat /sys/devices/system/cpu/cpu0/cpufreq/scaling_governor
"""
STATE_SCRIPT = """echo '#thermal'; dumpsys thermalservice
echo '#battery'; dumpsys battery
echo '#load'; cat /proc/loadavg
echo '#frequency'; cat /sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq
"""
_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
_TEMPERATURE = re.compile(r"Temperature\{mValue=(-?[\d.]+), mType=(-?\d+), mName=([^,}]*)")
_ENTRY = re.compile(r"^ {1,4}([A-Za-z][A-Za-z ]*): *(\S+) *$", re.MULTILINE)
# Sensors that measure nothing answer with values such as -99.9.
_POSSIBLE_C = (-40.0, 150.0)


@dataclass(frozen=True)
class Battery:
    """Charge in percent, temperature in °C, and whether nothing charges it. None: not said."""

    percent: float | None
    temperature_c: float | None
    discharging: bool | None


@dataclass(frozen=True)
class Thermal:
    """The system's own verdict and the hottest sensor, in °C. None: the device does not report it."""

    state: str | None
    hottest_c: float | None

    @property
    def throttled(self) -> bool:
        """Whether the system slows itself down."""
        return self.state in THERMAL_STATES[THROTTLED_FROM:]


def sections(answer: str) -> dict[str, str]:
    """Return title → text of an answer to one of the scripts."""
    parts = re.split(r"^#([a-z]+)\n", answer, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def parse_properties(text: str) -> dict[str, str]:
    """Return key → value of what ``getprop`` prints."""
    return {key: value.strip() for key, value in _PROPERTY.findall(text)}


def parse_battery(text: str) -> Battery:
    """Return what ``dumpsys battery`` says; vendors append entries of their own, which are left out."""
    entries: dict[str, str] = {}
    for key, value in _ENTRY.findall(text):
        entries.setdefault(key.strip().lower(), value)
    level, scale = _number(entries.get("level")), _number(entries.get("scale")) or 100.0
    tenths = _number(entries.get("temperature"))
    powered = [value for key, value in entries.items() if key.endswith(" powered")]
    return Battery(
        percent=None if level is None else 100 * level / scale,
        temperature_c=None if tenths is None else tenths / 10,
        discharging="true" not in powered if powered else None,
    )


def parse_thermal(text: str) -> Thermal:
    """Return what ``dumpsys thermalservice`` says now: the cached temperatures before are of another time."""
    ready = re.search(r"^HAL Ready: (\w+)", text, re.MULTILINE)
    status = re.search(r"^Thermal Status: (\d+)", text, re.MULTILINE)
    current = text.partition("Current temperatures from HAL:")[2].partition("Current cooling devices")[0]
    values = [float(value) for value, _, _ in _TEMPERATURE.findall(current)]
    possible = [value for value in values if _POSSIBLE_C[0] < value < _POSSIBLE_C[1]]
    # Without its hardware layer the service reports 0 for ever.
    known = status is not None and ready is not None and ready[1] == "true"
    state = int(status[1]) if known and status is not None else None
    return Thermal(
        state=None if state is None else THERMAL_STATES[min(state, len(THERMAL_STATES) - 1)],
        hottest_c=max(possible, default=None),
    )


def read_conditions(answer: str, time_s: float) -> Conditions:
    """Return the state of the device from the answer to ``STATE_SCRIPT``, asked for at ``time_s``."""
    parts = sections(answer)
    thermal, battery = parse_thermal(parts.get("thermal", "")), parse_battery(parts.get("battery", ""))
    hottest = [value for value in (thermal.hottest_c, battery.temperature_c) if value is not None]
    kilohertz = [int(word) for word in parts.get("frequency", "").split() if word.isdigit()]
    return Conditions(
        time_s=time_s,
        load_average=_number((parts.get("load", "").split() or [""])[0]),
        frequency_hz=max(kilohertz) * 1000.0 if kilohertz else None,
        temperature_c=max(hottest, default=None),
        thermal_state=thermal.state,
        battery_percent=battery.percent,
        on_battery=battery.discharging,
    )


def read_machine(answer: str) -> Machine:
    """Return the facts of the device from the answer to ``FACTS_SCRIPT``; its serial number is not among them."""
    parts = sections(answer)
    properties = parse_properties(parts.get("properties", ""))
    maker, model = properties.get("ro.product.manufacturer", ""), properties.get("ro.product.model", "unknown model")
    title = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    memory = re.search(r"MemTotal:\s+(\d+) kB", parts.get("memory", ""))
    return Machine(
        name=re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "android",
        processor=_processor(properties),
        architecture=properties.get("ro.product.cpu.abi", "unknown"),
        system=f"Android {properties.get('ro.build.version.release', '?')}, {title}",
        cores=_count(parts.get("cores", "")),
        memory_bytes=int(memory[1]) * 1024 if memory else None,
        virtual=properties.get("ro.kernel.qemu") == "1" or properties.get("ro.boot.qemu") == "1",
        governor=parts.get("governor", "").strip() or None,
    )


def architectures(properties: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of what the device runs, best first, such as ``arm64-v8a``."""
    listed = properties.get("ro.product.cpu.abilist") or properties.get("ro.product.cpu.abi", "")
    return tuple(name.strip() for name in listed.split(",") if name.strip())


def _processor(properties: Mapping[str, str]) -> str:
    maker, model = properties.get("ro.soc.manufacturer", ""), properties.get("ro.soc.model", "")
    return f"{maker} {model}".strip() or properties.get("ro.board.platform") or properties.get("ro.hardware", "unknown")


def _count(ranges: str) -> int:
    """Return how many cores ``0-3,6`` names; 1 where the device does not say."""
    total = 0
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", ranges):
        total += int(last) - int(first) + 1 if last else 1
    return max(1, total)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
