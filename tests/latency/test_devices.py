"""Devices by name: which driver a name stands for, what is listed, and what bench --device does with each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import android_logs as logs
import pytest
import typer
from bench_cases import write_onnx
from phone_case import PhoneCase
from tflite_case import write_tflite

from deploykit.cli import devices as command
from deploykit.cli.bench import bench
from deploykit.devices import list_devices
from deploykit.errors import EXIT_USER, DeviceError, UsageError
from deploykit.latency.drivers import adb, benchmark_model, ios, ssh
from deploykit.latency.drivers.feeds import make_feeds
from deploykit.latency.drivers.table import DRIVERS, Driver, driver_of
from deploykit.latency.subjects import find_subjects


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PhoneCase:
    return PhoneCase(tmp_path, monkeypatch)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tflite(tmp_path / "sum.tflite")


@pytest.mark.parametrize(
    ("device", "driver", "which"),
    [
        ("host", Driver.HOST, None),
        ("adb", Driver.ADB, None),
        ("adb:R58M", Driver.ADB, "R58M"),
        ("adb:192.168.1.5:5555", Driver.ADB, "192.168.1.5:5555"),
        ("ios", Driver.IOS, None),
        ("ios:My iPhone: the second", Driver.IOS, "My iPhone: the second"),
        ("ssh://user@host:22", Driver.SSH, "ssh://user@host:22"),
        ("browser", Driver.BROWSER, None),
        ("browser:lan", Driver.BROWSER, "lan"),
    ],
)
def test_a_name_stands_for_a_driver_and_one_of_its_devices(device: str, driver: Driver, which: str | None) -> None:
    assert driver_of(device) == (driver, which)


@pytest.mark.parametrize("device", ["", "phone", "adb:", "host:1", "ADB", "ssh:user@host", "user@host"])
def test_another_name_is_an_error_that_lists_them(device: str) -> None:
    with pytest.raises(UsageError, match="no such device") as caught:
        driver_of(device)
    assert "adb[:serial]" in str(caught.value)


def test_the_table_says_what_the_drivers_say() -> None:
    assert list(DRIVERS) == list(Driver)
    assert [row.driver for row in DRIVERS.values()] == list(Driver)
    assert DRIVERS[Driver.ADB].accelerators == tuple(benchmark_model.ACCELERATORS)
    assert DRIVERS[Driver.IOS].accelerators == tuple(ios.COMPUTE_UNITS)
    assert {adb.DRIVER, ios.DRIVER, ssh.DRIVER} <= {str(driver) for driver in Driver}
    never = {row.driver for row in DRIVERS.values() if not row.run_on_hardware}
    assert never == {Driver.ADB, Driver.IOS}


def test_what_is_there_and_what_is_missing_is_listed(
    phone: PhoneCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEPLOYKIT_BENCHMARK_MODEL", raising=False)
    rows = {row.driver: row for row in list_devices()}
    assert rows[Driver.HOST].ready
    assert rows[Driver.ADB].found == ("A1: device",)
    assert not rows[Driver.ADB].ready
    assert "DEPLOYKIT_BENCHMARK_MODEL" in rows[Driver.ADB].next_step
    assert not rows[Driver.ADB].run_on_hardware
    if sys.platform != "darwin":
        assert rows[Driver.IOS].missing == "needs macOS"
    tool = phone.options(tmp_path).benchmark_model
    monkeypatch.setenv("DEPLOYKIT_BENCHMARK_MODEL", str(tool))
    assert {row.driver: row for row in list_devices()}[Driver.ADB].ready
    monkeypatch.setenv("DEPLOYKIT_BENCHMARK_MODEL", str(tmp_path / "gone"))
    assert "has to be a file" in {row.driver: row for row in list_devices()}[Driver.ADB].next_step


def test_without_programs_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = {row.driver: row for row in list_devices()}
    assert rows[Driver.SSH].missing == "ssh is not on the PATH"
    assert rows[Driver.ADB].missing == "adb is not on the PATH"


def test_the_command_prints_a_table_or_one_record(phone: PhoneCase, capsys: pytest.CaptureFixture[str]) -> None:
    command.devices()
    shown = " ".join(capsys.readouterr().out.split())
    assert "never run on hardware by" in shown
    assert "A1: device" in shown
    command.devices(as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "devices"
    assert [row["driver"] for row in record["body"]] == list(Driver)
    assert {row["driver"] for row in record["body"] if row["run_on_hardware"]} == {"host", "ssh", "browser"}


def test_listing_devices_imports_no_framework() -> None:
    heavy = "{'torch', 'coremltools', 'onnx', 'onnxruntime', 'litert_torch', 'cv2', 'numpy'}"
    script = f"import sys, deploykit.devices as d; d.list_devices(); print(sorted({heavy} & set(sys.modules)))"
    folder = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == "[]"


def test_feeds_are_in_the_order_of_the_models_own_inputs(model: Path, tmp_path: Path) -> None:
    feeds = make_feeds(find_subjects([model, write_onnx(tmp_path / "m.onnx")]), None, ())
    assert [{name: value.shape for name, value in feed.items()} for feed in feeds["sum.tflite"]] == [
        {"z": (1, 4), "a": (1, 1)}
    ]
    assert list(feeds["sum.tflite"][0]) == ["z", "a"]
    assert feeds["m.onnx"][0]["x"].shape == (1, 3, 8, 8)


def on_phone(phone: PhoneCase, tmp_path: Path, *paths: Path, as_json: bool = True) -> None:
    bench(
        list(paths),
        runs=30,
        precision_target="none",
        device="adb",
        benchmark_model=phone.options(tmp_path).benchmark_model,
        as_json=as_json,
    )


def test_bench_measures_on_a_device_by_its_name(
    phone: PhoneCase, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    on_phone(phone, tmp_path, model)
    row = json.loads(capsys.readouterr().out)["body"]["measured"][0]
    assert (row["driver"], row["artifact"], row["accelerator"]) == ("adb", "sum.tflite", "cpu")
    assert [one["runs"] for one in row["summaries"]] == [50] * 3
    assert "--input_layer_shape=1,4:1,1" in phone.tool_calls()[0]
    on_phone(phone, tmp_path, model, as_json=False)
    said = " ".join(capsys.readouterr().err.split())
    assert "Google Tensor G2" in said
    assert "benchmark_model prints no single runs" in said


def test_a_device_lost_in_the_middle_is_exit_code_1_with_what_there_was(
    phone: PhoneCase, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    phone.change(events={"2": "lost"}, gone_text=logs.NO_DEVICE)
    with pytest.raises(typer.Exit) as caught:
        on_phone(phone, tmp_path, model)
    assert caught.value.exit_code == 1
    printed = capsys.readouterr()
    body = json.loads(printed.out)["body"]
    assert (body["complete"], body["measured"][0]["runs"]) == (False, 2)
    assert "ended early: The device was lost" in printed.err


def test_a_device_that_is_not_there_is_exit_code_2(phone: PhoneCase, tmp_path: Path, model: Path) -> None:
    phone.change(devices={})
    with pytest.raises(DeviceError, match="No Android device") as caught:
        on_phone(phone, tmp_path, model)
    assert caught.value.exit_code == EXIT_USER


def test_where_nothing_could_be_measured_the_reasons_are_an_error(
    phone: PhoneCase, tmp_path: Path, model: Path
) -> None:
    phone.answers(cpu=logs.XNNPACK, gpu=logs.GPU_FAILED, returns=1)
    tool = phone.options(tmp_path).benchmark_model
    with pytest.raises(DeviceError, match="Nothing was measured on the device") as caught:
        bench([model], device="adb", accelerator=["gpu"], benchmark_model=tool)
    assert "UNPACK: Operation is not supported" in str(caught.value)


def test_what_only_this_machine_measures_is_refused_on_a_device(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="on this machine only"):
        bench([model], device="adb", end_to_end=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nothing to measure on the device"):
        bench(output_dir=tmp_path / "empty", device="adb")
    with pytest.raises(UsageError, match="no such device"):
        bench([model], device="phone")
