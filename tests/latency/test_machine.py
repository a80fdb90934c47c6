"""What the machine is called."""

from __future__ import annotations

import platform

import pytest

from deploykit.latency.machine import _model_in, cpu_model, device_name, usable_cores


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some  CPU @ 2.50GHz\nmodel name\t: other", "Some CPU @ 2.50GHz"),
        ("processor\t: 0\nBogoMIPS\t: 108\nHardware\t: BCM2711", "BCM2711"),
        ("model name\t:\nprocessor\t: 0", ""),
        ("", ""),
    ],
)
def test_the_processor_is_named_by_the_system(cpuinfo: str, expected: str) -> None:
    assert _model_in(cpuinfo) == expected


def test_the_device_is_named_without_its_host() -> None:
    name = device_name()
    assert cpu_model() in name
    assert f"{usable_cores()} core" in name
    assert platform.system() in name
    assert platform.node() not in name.split()
