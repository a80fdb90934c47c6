from __future__ import annotations

import time

import pytest

from deploykit.preview.clock import STAGES, Clock


def test_waiting_counts_on_the_clock_and_working_on_both():
    clock = Clock()
    for _ in range(2):
        with clock.time("decode"):
            time.sleep(0.05)
        with clock.time("encode"):
            until = time.thread_time() + 0.03
            while time.thread_time() < until:
                pass
    waited, worked = clock.stages(2)
    assert (waited.name, worked.name) == ("decode", "encode")
    assert waited.wall_s >= 0.05
    assert waited.cpu_s < 0.02
    assert 0.03 <= worked.cpu_s < 0.06


def test_stages_that_took_no_time_are_left_out_and_a_failed_one_counts():
    clock = Clock()
    assert clock.stages(0) == ()
    with pytest.raises(ZeroDivisionError), clock.time("inference"):
        1 / 0  # noqa: B018
    assert [one.name for one in clock.stages(1)] == ["inference"]
    with pytest.raises(KeyError), clock.time("unknown"):
        pass
    assert "flicker" in STAGES
