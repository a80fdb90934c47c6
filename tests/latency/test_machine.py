"""What the machine is called, which cores are chosen, and what about its state deserves a warning."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.latency.agent import cores, machine
from deploykit.latency.agent.conditions import Watch
from deploykit.latency.machine import cpu_model, device_name, this_machine, usable_cores, warnings_about
from deploykit.latency_records import Conditions, Machine

GOOD = Machine(
    "m", "A Processor", "x86_64", "Linux 6.1", cores=4, physical_cores=4, governor="performance", turbo=False
)
CALM = Conditions(0.0, other_load=0.0, steal_s=5.0, throttled=3, on_battery=False, quota_throttled=0)


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some  CPU @ 2.50GHz\nmodel name\t: other", "Some CPU @ 2.50GHz"),
        ("processor\t: 0\nBogoMIPS\t: 108\nHardware\t: BCM2711", "BCM2711"),
        ("model name\t:\nprocessor\t: 0", platform.processor() or platform.machine()),
    ],
)
def test_the_processor_is_named_by_the_system(cpuinfo: str, expected: str) -> None:
    assert machine.processor_name(cpuinfo) == expected


@pytest.mark.parametrize(
    ("processor", "key"),
    [
        ("Intel(R) Core(TM) i5-7200U CPU @ 2.50GHz", "intel-core-i5-7200u-4-cores-linux"),
        ("AMD EPYC 7B13", "amd-epyc-7b13-4-cores-linux"),
        ("Apple M2", "apple-m2-4-cores-linux"),
    ],
)
def test_the_key_of_a_machine_is_its_processor_its_cores_and_its_system(processor: str, key: str) -> None:
    assert machine.key_of(processor, 4, "Linux") == key


def test_the_device_is_named_without_its_host() -> None:
    name, here = device_name(), this_machine()
    assert device_name(here) == name
    assert cpu_model() in name
    assert f"{usable_cores()} core" in name
    assert platform.system() in name
    for text in (name, *(str(value) for value in vars(here).values())):
        assert platform.node() not in text.split()
    assert here.memory_bytes is None or here.memory_bytes > 2**28


@pytest.mark.skipif(not cores.usable(), reason="this system does not pin")
def test_as_many_cores_are_chosen_as_threads_and_only_those_there_are() -> None:
    there = cores.usable()
    assert len(cores.chosen("auto", 1)) == 1
    assert set(cores.chosen("auto", 1)) <= set(there)
    assert cores.chosen("auto", len(there) + 3) == there
    assert cores.chosen([there[0], there[0]], 5) == [there[0]]
    assert cores.chosen(None, 1) == []
    with pytest.raises(OSError, match="no core 4096"):
        cores.chosen([4096], 1)


def test_conditions_are_counters_that_do_not_fall() -> None:
    clock = iter(range(100))
    watch = Watch([], lambda: float(next(clock)))
    first, second = watch.read(slowly=True), watch.read()
    assert (first["time_s"], second["time_s"]) == (0.0, 1.0)
    Conditions(**first)
    for name in ("steal_s", "major_faults", "minor_faults", "preempted"):
        assert first[name] is None or first[name] <= second[name]
    if Path("/proc/stat").exists():
        assert first["steal_s"] is not None


def test_a_quiet_machine_deserves_no_warning() -> None:
    assert warnings_about(GOOD, [CALM, replace(CALM, time_s=10.0)], threads=4) == ()


@pytest.mark.parametrize(
    ("changed", "after", "threads", "problem", "remedy"),
    [
        ({"governor": "powersave"}, {}, 1, "governor is powersave", "cpupower"),
        ({"turbo": True}, {}, 1, "turbo is on", "no_turbo"),
        ({}, {"on_battery": True}, 1, "battery", "power supply"),
        ({}, {"throttled": 4}, 1, "throttled for heat", "cool"),
        ({}, {"thermal_state": "speed limited to 60 %"}, 1, "speed limited to 60 %", "cool"),
        ({}, {"quota_throttled": 2}, 1, "share of the processor", "--cpus"),
        ({}, {"other_load": 0.9}, 1, "keep 0.9 cores busy", "top"),
        ({}, {"steal_s": 6.0}, 1, "took 2% of the time", "compare"),
        ({}, {}, 5, "5 threads share 4 cores", "--threads 4"),
        ({"physical_cores": 2}, {}, 3, "2 physical cores", "--threads 2"),
    ],
)
def test_each_trouble_has_its_remedy(
    changed: dict[str, object], after: dict[str, object], threads: int, problem: str, remedy: str
) -> None:
    end = replace(CALM, time_s=10.0, **after)
    (warned,) = warnings_about(replace(GOOD, **changed), [CALM, end], threads=threads)
    assert problem in warned.problem
    assert remedy in warned.remedy
