"""What Android and benchmark_model print is read as it is meant: public logs, each with its source beside it."""

from __future__ import annotations

from pathlib import Path

import android_logs as logs
import pytest

from deploykit.errors import DeviceError
from deploykit.latency.drivers import android, benchmark_model
from deploykit.latency.drivers.benchmark_model import ACCELERATORS, architecture_of, command_line, parse


def test_a_log_gives_warm_up_start_and_the_regular_runs() -> None:
    run = parse(logs.CPU_OLD)
    assert run is not None
    assert run.warmup_runs == 2
    assert (run.load_s, run.first_inference_s) == (pytest.approx(0.020283), pytest.approx(0.339304))
    summary = run.summary
    assert (summary.runs, summary.first_s, summary.last_s) == (50, pytest.approx(0.266601), pytest.approx(0.266931))
    assert (summary.min_s, summary.max_s, summary.mean_s) == pytest.approx((0.265837, 0.268116, 0.266473))
    assert summary.median_s is None
    assert summary.center_s == summary.mean_s
    assert run.peak_memory_bytes is None
    assert run.on_gpu == "none"


def test_newer_builds_give_percentiles_and_memory() -> None:
    run = parse(logs.PERCENTILES)
    assert run is not None
    assert run.summary.runs == 24
    assert run.summary.center_s == run.summary.median_s == pytest.approx(0.042405)
    assert (run.summary.p5_s, run.summary.p95_s) == pytest.approx((0.042232, 0.042729))
    assert run.peak_memory_bytes == round(27.5859 * 2**20)


def test_the_older_line_about_memory_is_read_too() -> None:
    run = parse(logs.XNNPACK)
    assert run is not None
    assert run.peak_memory_bytes == round(1.32812 * 2**20)


@pytest.mark.parametrize(
    ("text", "on_gpu", "delegated", "backend"),
    [
        (logs.GPU, "whole", None, "OpenCL"),
        (logs.GPU_PARTIAL, "partial", (54, 559), "OpenCL"),
        (logs.GPU_UNSUPPORTED, "none", None, ""),
        (logs.GPU_NOT_TAKEN, "none", None, ""),
        (logs.XNNPACK, "none", None, ""),
    ],
)
def test_what_the_gpu_took_is_what_the_tool_says_of_the_gpu(
    text: str, on_gpu: str, delegated: tuple[int, int] | None, backend: str
) -> None:
    run = parse(text)
    assert run is not None
    assert (run.on_gpu, run.delegated, run.backend) == (on_gpu, delegated, backend)


def test_a_log_without_its_end_measured_nothing() -> None:
    assert parse(logs.CPU_OLD.partition("Inference timings")[0]) is None
    assert parse(logs.GPU_FAILED) is None
    assert "UNPACK" in benchmark_model.problem(logs.GPU_FAILED)
    assert benchmark_model.problem(logs.CPU_OLD) == ""


def test_runs_of_equal_length_have_one_number_alone() -> None:
    run = parse(
        "count=1 curr=1381510\ncount=5 curr=29(all same)\nInference timings in us: Init: 1, First inference: 2, "
    )
    assert run is not None
    assert (run.summary.runs, run.summary.mean_s, run.summary.max_s) == (5, pytest.approx(29e-6), pytest.approx(29e-6))


def test_operations_are_those_of_the_regular_runs_in_their_order() -> None:
    rows = benchmark_model.parse_operations(logs.PROFILE)
    assert [row.operation for row in rows] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"]
    assert rows[0].name == "[MobilenetV1/MobilenetV1/Conv2d_0/Relu6]:0"
    assert rows[2].seconds == pytest.approx(0.147808)


def test_operations_of_delegates_have_words_in_their_kind_and_no_start() -> None:
    rows = benchmark_model.parse_operations(logs.PROFILE_XNNPACK)
    assert [row.operation for row in rows] == ["Convolution (NHWC, QC8) IGEMM", "RESIZE_NEAREST_NEIGHBOR"]
    assert [row.seconds for row in rows] == pytest.approx([0.000407, 0.000058])


def test_the_options_are_those_of_the_tool() -> None:
    words = command_line(
        "m.tflite",
        accelerator="gpu",
        threads=2,
        runs=10,
        seconds=0.2,
        warmup_seconds=0.5,
        max_seconds=30,
        inputs=(("a.bin", (1, 224, 224, 3)), ("b.bin", (1, 20))),
        profile=True,
    )
    assert "--use_gpu=true" in words
    assert "--input_layer_shape=1,224,224,3:1,20" in words
    assert "--input_layer_value_files=input0:a.bin,input1:b.bin" in words
    assert {"--num_threads=2", "--num_runs=10", "--min_secs=0.2", "--max_secs=30", "--warmup_min_secs=0.5"} <= set(
        words
    )
    assert words[-1] == "--enable_op_profiling=true"
    assert set(ACCELERATORS) == {"cpu", "cpu-without-xnnpack", "gpu"}


@pytest.mark.parametrize(("number", "name"), [(0xB7, "arm64-v8a"), (0x28, "armeabi-v7a"), (0x3E, "x86_64")])
def test_the_processor_of_a_program_is_read_from_its_head(tmp_path: Path, number: int, name: str) -> None:
    program = tmp_path / "benchmark_model"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(11) + number.to_bytes(2, "little"))
    assert architecture_of(program) == name


@pytest.mark.parametrize("content", [None, b"#!/bin/sh\n", b"\x7fELF"])
def test_a_program_that_is_none_is_an_error(tmp_path: Path, content: bytes | None) -> None:
    program = tmp_path / "benchmark_model"
    if content is not None:
        program.write_bytes(content)
    with pytest.raises(DeviceError, match="benchmark_model cannot be used"):
        architecture_of(program)


def test_temperatures_are_those_of_now_and_sensors_that_measure_nothing_are_left_out() -> None:
    thermal = android.parse_thermal(logs.THERMAL)
    assert (thermal.state, thermal.hottest_c) == ("none", 66.5)


def test_without_its_hardware_layer_a_state_of_0_means_nothing() -> None:
    thermal = android.parse_thermal(logs.THERMAL_WITHOUT_HAL)
    assert (thermal.state, thermal.hottest_c) == (None, None)


def test_the_battery_is_read_among_a_vendors_own_entries() -> None:
    battery = android.parse_battery(logs.BATTERY)
    assert (battery.percent, battery.temperature_c, battery.discharging) == (84.0, 32.6, False)
    unplugged = android.parse_battery(logs.BATTERY.replace("USB powered: true", "USB powered: false"))
    assert unplugged.discharging is True
    assert android.parse_battery("") == android.Battery(None, None, None)


def test_the_machine_has_no_serial_number() -> None:
    answer = f"#properties\n{logs.PROPERTIES}#cores\n0-3,6\n#memory\nMemTotal:  7800000 kB\n#governor\nschedutil\n"
    machine = android.read_machine(answer)
    assert machine.name == "google-pixel-7"
    assert (machine.processor, machine.architecture, machine.cores) == ("Google Tensor G2", "arm64-v8a", 5)
    assert (machine.memory_bytes, machine.governor) == (7800000 * 1024, "schedutil")
    assert "SECRET" not in repr(machine)


def test_a_silent_device_gives_facts_that_say_so() -> None:
    machine = android.read_machine("")
    assert (machine.name, machine.cores, machine.memory_bytes, machine.governor) == ("unknown-model", 1, None, None)
