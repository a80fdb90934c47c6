"""The adb driver against a stand-in for adb and the phone behind it: hardware that this project does not have.

The driver was never run on a phone by us.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import android_logs as logs
import numpy as np
import pytest
from phone_case import PROTOCOL, PhoneCase

from deploykit.errors import DeviceError, UsageError
from deploykit.latency.drivers import adb
from deploykit.latency.drivers.adb import measure_on_android
from deploykit.latency.drivers.options import DeviceOptions, benchmark_model_path
from deploykit.latency.drivers.phone import find_phone
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark, Stopped
from deploykit.vocab import Target


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhoneCase:
    return PhoneCase(tmp_path, monkeypatch)


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    path = tmp_path / "a file; with $(odd) 'name'.tflite"
    path.write_bytes(b"TFL3" * 100)
    return Subject("sinet.tflite", path, Target.TFLITE, 400, None)


def measure(
    phone: PhoneCase, tmp_path: Path, *subjects: Subject, serial: str | None = None, **entries: object
) -> Benchmark:
    options = phone.options(tmp_path, **entries)  # type: ignore[arg-type]
    return measure_on_android(serial, subjects, PROTOCOL, options, feeds={})


def test_sessions_are_summaries_with_thermal_state_and_battery_before_and_after(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    result = measure(phone, tmp_path, subject)
    assert result.complete
    latency = result.measured[0]
    assert (latency.driver, latency.accelerator, latency.threads) == ("adb", "cpu", 1)
    assert latency.samples_s == pytest.approx([0.0557442] * 3)
    assert [one.runs for one in latency.summaries] == [50] * 3
    assert latency.runtime == "LiteRT benchmark_model (cpu)"
    assert "each sample is the mean of one session" in latency.notes[0]
    assert latency.stopped is Stopped.RUNS
    assert latency.startup is not None
    assert latency.startup.warm_load_s == pytest.approx(0.049438)
    assert latency.interval_s == pytest.approx((0.0557442, 0.0557442))
    assert result.machine is not None
    assert latency.device == result.machine.system == "Android 14, Google Pixel 7"
    before, after = result.conditions
    assert (before.thermal_state, before.temperature_c, before.battery_percent) == ("none", 66.5, 84.0)
    assert before.on_battery is False
    assert after.time_s > before.time_s
    assert result.warnings == ()
    assert phone.left_behind() == []
    # Neither the name of the user's file nor the serial number of the phone goes where it does not belong.
    assert not any("odd" in call[-1] for call in phone.calls() if "shell" in call)
    assert "A1" not in repr(result)
    assert "SECRET" not in repr(result)


def test_cpu_and_gpu_with_threads_are_jobs_of_one_run_in_shuffled_order(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    result = measure(phone, tmp_path, subject, accelerators=("cpu", "gpu"), threads=(1, 4))
    assert [(one.accelerator, one.threads) for one in result.measured] == [("cpu", 1), ("cpu", 4), ("gpu", 1)]
    assert result.measured[2].runtime == "LiteRT benchmark_model (gpu, OpenCL)"
    order = ["gpu" if "use_gpu" in call else "cpu" for call in phone.tool_calls()]
    assert len(order) == 9
    assert order[:3] != order[3:6] or order[3:6] != order[6:9]


def test_a_gpu_that_takes_nothing_is_no_gpu_figure(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    phone.answers(cpu=logs.XNNPACK, gpu=logs.GPU_UNSUPPORTED)
    result = measure(phone, tmp_path, subject, accelerators=("cpu", "gpu"))
    assert [one.accelerator for one in result.measured] == ["cpu"]
    assert result.skipped[0].artifact == "sinet.tflite (gpu)"
    assert "the GPU did not run it, the CPU did" in result.skipped[0].reason


def test_a_gpu_that_takes_a_part_is_said_to_share(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    phone.answers(cpu=logs.XNNPACK, gpu=logs.GPU_PARTIAL)
    result = measure(phone, tmp_path, subject, accelerators=("gpu",))
    assert result.measured[0].accelerator == "gpu and cpu"
    assert "the GPU runs 54 of 559 operations, the CPU the rest" in result.warnings[0].problem


def test_a_delegate_that_fails_is_skipped_with_its_own_words(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    phone.answers(cpu=logs.XNNPACK, gpu=logs.GPU_FAILED, returns=1)
    result = measure(phone, tmp_path, subject, accelerators=("gpu",))
    assert result.measured == ()
    assert "UNPACK: Operation is not supported" in result.skipped[0].reason


def test_single_operations_are_timed_apart_from_the_samples(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    phone.answers(cpu=logs.XNNPACK, gpu=logs.GPU, profile=logs.PROFILE)
    protocol = replace(PROTOCOL, profile=True)
    latency = measure_on_android(None, [subject], protocol, phone.options(tmp_path), feeds={}).measured[0]
    assert len(latency.operations) == 3
    assert sum("--enable_op_profiling" in call for call in phone.tool_calls()) == 1
    assert len(latency.samples_s) == 3


def test_real_inputs_are_pushed_as_bytes_in_the_models_order(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    feeds = {subject.name: [{"b": np.zeros((1, 8, 8, 3), np.float32), "a": np.ones((1, 4), np.int8)}]}
    measure_on_android(None, [subject], PROTOCOL, phone.options(tmp_path), feeds=feeds)
    call = phone.tool_calls()[0]
    assert "--input_layer_shape=1,8,8,3:1,4" in call
    assert "model0-input0.bin" in call
    assert phone.left_behind() == []


@pytest.mark.parametrize(
    ("devices", "serial", "words"),
    [
        ({}, None, "No Android device is connected"),
        ({"A1": "unauthorized"}, None, "confirm the prompt"),
        ({"A1": "offline"}, None, "the device is offline"),
        ({"A1": "no permissions (missing udev rules?)"}, None, "may not use the device's USB port"),
        ({"A1": "device", "B2": "device"}, None, "--device adb:A1"),
        ({"A1": "device", "B2": "offline"}, "B2", "the device is offline"),
        ({"A1": "device"}, "C3", "This device is not connected"),
        ({"A1": "device"}, "-e", "no serial number"),
        ({"A1": "device"}, "A1; reboot", "no serial number"),
    ],
)
def test_a_device_that_cannot_be_used_is_an_error_with_the_next_step(
    phone: PhoneCase, tmp_path: Path, subject: Subject, devices: dict[str, str], serial: str | None, words: str
) -> None:
    phone.change(devices=devices)
    with pytest.raises(DeviceError) as caught:
        measure(phone, tmp_path, subject, serial=serial)
    assert words in str(caught.value)
    assert phone.left_behind() == []


def test_one_of_several_devices_is_named_or_chosen_by_the_environment(
    phone: PhoneCase, tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.change(devices={"A1": "device", "192.168.1.5:5555": "device"})
    assert find_phone("192.168.1.5:5555").serial == "192.168.1.5:5555"
    monkeypatch.setenv("ANDROID_SERIAL", "A1")
    assert find_phone(None).serial == "A1"


@pytest.mark.parametrize("returns", [0, 1])
def test_a_full_device_is_said_even_where_adb_returns_0(
    phone: PhoneCase, tmp_path: Path, subject: Subject, returns: int
) -> None:
    phone.change(full=logs.PUSH_FULL, full_returns=returns)
    with pytest.raises(DeviceError, match="No space is left on the device"):
        measure(phone, tmp_path, subject)
    assert phone.left_behind() == []


def test_a_push_that_stops_halfway_is_noticed_by_its_size(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    phone.change(full="{source}: 1 file pushed, 0 skipped.\n", full_returns=0)
    with pytest.raises(DeviceError, match="did not take benchmark_model"):
        measure(phone, tmp_path, subject)


def test_a_device_lost_in_the_middle_keeps_what_was_measured(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    phone.change(events={"2": "lost"})
    result = measure(phone, tmp_path, subject)
    assert not result.complete
    assert "The device was lost" in result.ended
    latency = result.measured[0]
    assert len(latency.samples_s) == 2
    assert latency.stopped is Stopped.INTERRUPTED
    assert "adb shell rm -rf /data/local/tmp/deploykit-" in result.warnings[0].remedy
    assert "A1" not in repr(result)


def test_a_device_lost_before_anything_was_measured_is_an_error(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    phone.change(events={"0": "lost"}, gone_text=logs.NO_DEVICE)
    with pytest.raises(DeviceError, match="The device was lost"):
        measure(phone, tmp_path, subject)


def test_a_device_that_withdraws_its_permission_says_so(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    phone.change(gone_text=logs.UNAUTHORIZED)
    (phone.home / "gone").touch()
    with pytest.raises(DeviceError, match="has not allowed this machine"):
        measure(phone, tmp_path, subject)


def test_a_tool_that_hangs_is_ended_and_what_was_measured_kept(
    phone: PhoneCase, tmp_path: Path, subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone.change(events={"2": "hangs"})
    monkeypatch.setattr(adb, "START_S", 1.0 - 2 * PROTOCOL.max_seconds)
    result = measure(phone, tmp_path, subject)
    assert not result.complete
    assert "no answer in time" in result.ended
    assert len(result.measured[0].samples_s) == 2
    assert phone.left_behind() == []


def test_ctrl_c_keeps_what_was_measured_and_leaves_nothing_running(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    phone.change(events={"2": "interrupt"})
    result = measure(phone, tmp_path, subject)
    assert (result.complete, result.ended) == (False, "interrupted")
    assert len(result.measured[0].samples_s) == 2
    assert phone.left_behind() == []
    number = int((phone.home / "sleeper").read_text("utf-8"))
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and _alive(number):
        time.sleep(0.02)
    assert not _alive(number)


def _alive(number: int) -> bool:
    status = Path(f"/proc/{number}/stat")
    if status.exists():
        return status.read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(number, 0)
    except OSError:
        return False
    return True


def test_a_benchmark_model_for_another_processor_is_refused_before_it_is_pushed(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    options = phone.options(tmp_path, machine=0x3E)
    with pytest.raises(DeviceError) as caught:
        measure_on_android(None, [subject], PROTOCOL, options, feeds={})
    assert "x86_64" in str(caught.value)
    assert "arm64-v8a or armeabi-v7a" in str(caught.value)
    assert not any("push" in call for call in phone.calls())


def test_a_program_that_the_device_refuses_to_run_is_named(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    phone.answers(cpu=logs.WRONG_PROGRAM, returns=126)
    with pytest.raises(DeviceError, match="cannot run this benchmark_model"):
        measure(phone, tmp_path, subject)
    assert phone.left_behind() == []


def test_a_hot_device_and_an_empty_battery_are_warned_of(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    hot = logs.THERMAL.replace("Thermal Status: 0", "Thermal Status: 3")
    phone.state(thermal=hot, battery=logs.BATTERY.replace("level: 84", "level: 9"))
    problems = [one.problem for one in measure(phone, tmp_path, subject).warnings]
    assert problems == [
        "The device slows itself down: thermal state severe.",
        "The battery is at 9 %, where many devices save power.",
    ]


def test_other_files_are_skipped_and_without_a_tflite_file_there_is_nothing(
    phone: PhoneCase, tmp_path: Path, subject: Subject
) -> None:
    other = Subject("sinet.onnx", subject.path, Target.ONNX, 400, None)
    result = measure(phone, tmp_path, other, subject)
    assert result.skipped[0].artifact == "sinet.onnx"
    with pytest.raises(DeviceError, match="nothing that Android can run"):
        measure(phone, tmp_path, other)


def test_the_tool_and_the_accelerator_have_to_be_there(phone: PhoneCase, tmp_path: Path, subject: Subject) -> None:
    with pytest.raises(UsageError, match="needs LiteRT's benchmark_model"):
        measure_on_android(None, [subject], PROTOCOL, DeviceOptions(), feeds={})
    with pytest.raises(UsageError, match="no such accelerator"):
        measure(phone, tmp_path, subject, accelerators=("npu",))


def test_the_tool_comes_from_the_option_before_the_environment(tmp_path: Path) -> None:
    named = {"DEPLOYKIT_BENCHMARK_MODEL": "/somewhere/tool"}
    assert benchmark_model_path(None, named) == Path("/somewhere/tool")
    assert benchmark_model_path(tmp_path, named) == tmp_path
    assert benchmark_model_path(None, {}) is None
