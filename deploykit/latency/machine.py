"""What this machine is, in words that name neither its host nor its user, and what about it spoils measurements."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

from deploykit.latency.agent import machine as agent_machine
from deploykit.latency.agent.cores import usable
from deploykit.latency_records import Conditions, Machine, Warned

_CPUINFO = Path("/proc/cpuinfo")
# Cores busy with other work, and the share of time stolen, above which a figure is in doubt.
_OTHER_LOAD = 0.3
_STEAL = 0.01


def cpu_model() -> str:
    """Return the processor's name as the system gives it, or its architecture where it gives none."""
    text = _CPUINFO.read_text("utf-8", errors="replace") if _CPUINFO.is_file() else ""
    return agent_machine.processor_name(text)


def usable_cores() -> int:
    """Return the number of logical cores that this process may use."""
    return this_machine().cores


def this_machine() -> Machine:
    """Return what this machine is; ``name`` is its key among saved results."""
    return Machine(**agent_machine.facts())


def device_name(machine: Machine | None = None) -> str:
    """Return processor, usable cores, system and architecture of ``machine``, or of this one, as one line."""
    found = machine or this_machine()
    plural = "" if found.cores == 1 else "s"
    system = found.system.split()[0] if machine else platform.system()
    return f"{found.processor}, {found.cores} core{plural}, {system} {found.architecture}"


def warnings_about(
    machine: Machine | None, conditions: Sequence[Conditions], threads: int, affinity: Sequence[int] = ()
) -> tuple[Warned, ...]:
    """Return what about ``machine`` and its ``conditions`` in the order of time makes latencies worse or less certain.

    ``threads`` are the most that were asked for, ``affinity`` the cores that were pinned to.
    """
    found = [*_of_the_machine(machine, threads)] if machine is not None else []
    found += _of_power(conditions)
    found += _of_heat(conditions)
    found += _of_others(conditions, len(affinity) or (machine.cores if machine else 1))
    return tuple(found)


def _of_the_machine(machine: Machine, threads: int) -> list[Warned]:
    found = []
    if threads > machine.cores:
        cores = f"{machine.cores} core{'' if machine.cores == 1 else 's'}"
        found.append(
            Warned(
                f"{threads} threads share {cores}: they wait for each other",
                f"ask for at most --threads {machine.cores}, or give this process more cores",
            )
        )
    elif machine.physical_cores and threads > machine.physical_cores:
        found.append(
            Warned(
                f"{threads} threads share {machine.physical_cores} physical cores: second threads of a core add little",
                f"ask for at most --threads {machine.physical_cores}",
            )
        )
    if machine.governor and machine.governor not in ("performance", "schedutil"):
        found.append(
            Warned(
                f"the frequency governor is {machine.governor}: the processor may run below its frequency",
                "sudo cpupower frequency-set --governor performance, and back afterwards",
            )
        )
    if machine.turbo:
        off = "echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo, or 0 to .../cpufreq/boost"
        found.append(Warned("turbo is on: the frequency depends on heat and on what other cores do", off))
    return found


def _of_power(conditions: Sequence[Conditions]) -> list[Warned]:
    if any(one.on_battery for one in conditions):
        return [Warned("the machine runs on its battery, and saves power", "connect the power supply")]
    return []


def _of_heat(conditions: Sequence[Conditions]) -> list[Warned]:
    found = []
    states = [one.thermal_state for one in conditions if one.thermal_state not in (None, "nominal")]
    if states or _risen([one.throttled for one in conditions]):
        said = f" ({states[-1]})" if states else ""
        found.append(
            Warned(
                f"the processor was throttled for heat{said}",
                "let it cool, keep it on a hard surface, and measure for a shorter time",
            )
        )
    if _risen([one.quota_throttled for one in conditions]):
        found.append(
            Warned(
                "the container's share of the processor was used up, and it was halted",
                "raise the limit (docker run --cpus), or ask for fewer --threads",
            )
        )
    return found


def cores_busy(conditions: Sequence[Conditions]) -> float | None:
    """Return how many cores other programs kept busy at the middle moment; None for none worth a warning."""
    loads = sorted(one.other_load for one in conditions if one.other_load is not None)
    return loads[len(loads) // 2] if loads and loads[len(loads) // 2] > _OTHER_LOAD else None


def _of_others(conditions: Sequence[Conditions], cores: int) -> list[Warned]:
    found = []
    busy = cores_busy(conditions)
    if busy is not None:
        found.append(
            Warned(
                f"other programs keep {busy:.1f} cores busy",
                "end them, or wait until they are done; uptime and top show them",
            )
        )
    steals = [(one.time_s, one.steal_s) for one in conditions if one.steal_s is not None]
    if len(steals) > 1:
        (start, before), (end, after) = steals[0], steals[-1]
        share = (after - before) / max((end - start) * cores, 1e-9)
        if share > _STEAL:
            found.append(
                Warned(
                    f"the machine is virtual, and its host took {share:.0%} of the time away",
                    "use a machine of your own, or trust only what was interleaved in one run (deploykit compare)",
                )
            )
    return found


def share_of_runs(share: float) -> str:
    """Return in words during what part of the runs something happened."""
    return "all runs" if share == 1 else f"{max(0.01, min(share, 0.99)):.0%} of the runs"


def _risen(counters: Sequence[int | None]) -> bool:
    known = [one for one in counters if one is not None]
    return len(known) > 1 and known[-1] > known[0]


def cores_there() -> tuple[int, ...]:
    """Return the numbers of the cores that this process may use; none where the system does not pin."""
    return tuple(usable())
