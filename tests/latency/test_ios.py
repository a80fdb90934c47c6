"""The ios driver against coremltools' own classes and signatures: no iPhone was ever connected to a machine of ours.

What stands in for hardware: ``xcrun`` and ``devicectl``, programs of a Mac, and below coremltools' benchmarker the
loaded model, which is a subclass of coremltools' own.
"""

from __future__ import annotations

import dataclasses
import gc
import inspect
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from coremltools.models import compute_device
from coremltools.models.compute_plan import MLComputePlanDeviceUsage
from coremltools.models.ml_program.experimental import async_wrapper, perf_utils, remote_device
from coremltools.models.ml_program.experimental.model_structure_path import map_model_spec_to_path

from deploykit.chatter import contained
from deploykit.errors import DeviceError, UsageError
from deploykit.latency.drivers import ios, rounds
from deploykit.latency.drivers.ios import COMPUTE_UNITS, UNITS, find_device, measure_on_ios
from deploykit.latency.drivers.options import DeviceOptions
from deploykit.latency.measure import Protocol
from deploykit.latency.subjects import Subject
from deploykit.latency_records import Benchmark, Stopped
from deploykit.vocab import Target

PROTOCOL = Protocol(min_runs=6, min_seconds=1.0, max_seconds=60.0, precision_target=None)
FEEDS = {"m": [{"x": np.zeros((1, 3, 4, 4), np.float32)}]}


def _listed(name: str, kind: str = "iPhone", state: str = "connected") -> dict[str, Any]:
    """One entry of devicectl's list, with the keys that coremltools 9.0 reads."""
    return {
        "identifier": f"ID-{name}",
        "deviceProperties": {"name": name, "osVersionNumber": "18.2", "osBuildUpdate": "22C152"},
        "hardwareProperties": {"deviceType": kind, "udid": f"UDID-{name}"},
        "connectionProperties": {"tunnelState": state},
    }


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make this machine look like a Mac with Xcode; the function sets which devices Xcode lists."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("devicectl", "xcrun"):
        # The list goes into the file that follows -j, the last word.
        answer = f'for word; do test "$word" = -j && cat {tmp_path}/devices.json > "$last"; done'
        body = f'echo "$@" >> {tmp_path}/calls.log\nfor last; do :; done\n{answer}\nexit 0'
        (programs / name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(ios.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(remote_device._DeviceCtl, "_validation_done", False)

    def connect(*devices: dict[str, Any]) -> None:
        (tmp_path / "devices.json").write_text(json.dumps({"result": {"devices": devices}}), "utf-8")

    connect(_listed("Phone"))
    return connect


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 4, 4))])
    def program(x: Any) -> Any:
        return mb.relu(x=mb.add(x=x, y=np.float32(1), name="sum"), name="out")

    path = tmp_path_factory.mktemp("package") / "m.mlpackage"
    # coremltools leaves a temporary folder to the collector, which warns.
    with contained():
        model = ct.convert(
            program,
            minimum_deployment_target=ct.target.iOS17,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        )
        model.save(str(path))
        del model
        gc.collect()
    return path


@pytest.fixture
def subject(package: Path) -> Subject:
    return Subject("m", package, Target.COREML, 1000, None)


class LoadedModel(async_wrapper.MLModelAsyncWrapper):
    """Stands for a model on a device: durations in nanoseconds, as the app reports them."""

    fail_after = 10**9
    predicted = 0

    def __init__(self) -> None:
        self._temp_asset_path = None

    async def load(self) -> None:
        return

    async def unload(self) -> None:
        return

    async def predict(self, inputs: dict[str, Any], state: Any = None) -> dict[str, Any]:
        LoadedModel.predicted += 1
        if LoadedModel.predicted > LoadedModel.fail_after:
            raise remote_device._DeviceCtlError("The device was disconnected.", error_code=1)
        assert inputs["x"].shape == (1, 3, 4, 4)
        return {}

    def make_state_if_needed(self) -> None:
        return None

    async def retrieve_compute_plan(self) -> Any:
        raise NotImplementedError

    @property
    def load_duration_in_nano_seconds(self) -> int:
        return 40_000_000

    @property
    def last_predict_duration_in_nano_seconds(self) -> int:
        return 2_000_000 + LoadedModel.predicted


class Session:
    """Stands for the app on the device."""

    stopped = 0
    installation_info = remote_device._AppInstallationInfo("com.example.runner", "uuid")

    def stop(self) -> None:
        Session.stopped += 1


@pytest.fixture
def phone(mac: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace what needs hardware, below coremltools' own benchmarker; return what the device was asked."""
    asked: dict[str, Any] = {}
    signature = inspect.signature(remote_device.Device.prepare_for_model_debugging)

    async def prepare(self: Any, *words: Any, **named: Any) -> Any:
        asked.update(signature.bind(self, *words, **named).arguments)
        return dataclasses.replace(self, session=Session())

    async def loaded(model: Any, device: Any) -> LoadedModel:
        asked.setdefault("units", []).append(model.compute_unit)
        assert device.session is not None
        return LoadedModel()

    async def operations(self: Any, **named: Any) -> list[Any]:
        rows = []
        for spec, path in map_model_spec_to_path(model_spec=self.model_spec):
            unit = compute_device.MLNeuralEngineComputeDevice
            usage = MLComputePlanDeviceUsage(unit.__new__(unit), [])
            measurement = perf_utils.MLModelBenchmarker.Measurement.from_samples([1.5])
            rows.append(perf_utils.MLModelBenchmarker.OperationExecutionInfo(spec, path, usage, measurement))
        return rows

    monkeypatch.setattr(remote_device.Device, "prepare_for_model_debugging", prepare)
    monkeypatch.setattr(perf_utils.MLModelBenchmarker, "_create_loaded_model", staticmethod(loaded))
    monkeypatch.setattr(perf_utils.MLModelBenchmarker, "benchmark_operation_execution", operations)
    monkeypatch.setattr(LoadedModel, "predicted", 0)
    monkeypatch.setattr(Session, "stopped", 0)
    monkeypatch.setattr(rounds, "MIN_SESSIONS", 3)
    return asked


def measure(subject: Subject, protocol: Protocol = PROTOCOL, **entries: Any) -> Benchmark:
    return measure_on_ios(None, [subject], protocol, DeviceOptions(**entries), feeds=FEEDS)


def test_the_classes_and_signatures_are_those_that_the_driver_was_written_for() -> None:
    benchmarker = perf_utils.MLModelBenchmarker
    expected = {
        benchmarker.__init__: ["self", "model", "device"],
        benchmarker.benchmark_load: ["self", "iterations"],
        benchmarker.benchmark_predict: ["self", "inputs", "iterations", "warmup"],
        benchmarker.benchmark_operation_execution: ["self", "inputs", "iterations", "warmup"],
        remote_device.Device.get_devices: [],
        remote_device.Device.prepare_for_model_debugging: ["self", "credentials", "working_directory", "clean"],
        remote_device._AppSession.stop: ["self"],
    }
    for function, names in expected.items():
        assert list(inspect.signature(function).parameters) == names
    for name in ("benchmark_load", "benchmark_predict", "benchmark_operation_execution"):
        assert inspect.iscoroutinefunction(getattr(benchmarker, name))
    assert inspect.iscoroutinefunction(remote_device.Device.prepare_for_model_debugging)
    assert {one.name for one in dataclasses.fields(benchmarker.Measurement)} == {"statistics", "samples"}
    assert {"spec", "compute_device_usage", "measurement"} <= {
        one.name for one in dataclasses.fields(benchmarker.OperationExecutionInfo)
    }
    assert {"name", "type", "state", "identifier", "os_version", "os_build_number", "session"} <= {
        one.name for one in dataclasses.fields(remote_device.Device)
    }
    assert "development_team" in inspect.signature(remote_device.AppSigningCredentials).parameters
    assert "preferred_compute_device" in {one.name for one in dataclasses.fields(MLComputePlanDeviceUsage)}


def test_every_compute_unit_and_kind_of_device_has_a_word() -> None:
    assert set(COMPUTE_UNITS.values()) == {unit.name for unit in ct.ComputeUnit}
    kinds = compute_device.MLComputeDevice.__subclasses__()
    assert set(UNITS) == {kind.__name__ for kind in kinds}


def test_durations_of_the_device_come_in_milliseconds(phone: dict[str, Any], subject: Subject) -> None:
    result = measure(subject, accelerators=("all", "cpu+neural-engine"), development_team="TEAM123")
    assert result.complete
    assert [one.accelerator for one in result.measured] == ["all", "cpu+neural-engine"]
    latency = result.measured[0]
    assert latency.driver == "ios"
    assert len(latency.samples_s) == 6
    assert all(0.002 < sample < 0.003 for sample in latency.samples_s)
    assert latency.sessions == (0, 0, 1, 1, 2, 2)
    assert latency.startup is not None
    assert (latency.startup.cold_load_s, latency.startup.warm_load_s) == pytest.approx((0.04, 0.04))
    assert latency.device == "iOS 18.2 (22C152), iphone"
    assert {unit.name for unit in phone["units"]} == {"ALL", "CPU_AND_NE"}
    assert phone["credentials"].development_team == "TEAM123"
    assert not phone["working_directory"].exists()
    assert "idle between two of them" in result.warnings[0].problem


def test_the_app_is_stopped_and_removed(phone: dict[str, Any], subject: Subject, tmp_path: Path) -> None:
    measure(subject)
    assert Session.stopped == 1
    calls = (tmp_path / "calls.log").read_text("utf-8")
    assert "devicectl device uninstall app --device ID-Phone com.example.runner" in calls


def test_single_operations_name_the_unit_that_ran_them(phone: dict[str, Any], subject: Subject) -> None:
    latency = measure(subject, replace(PROTOCOL, profile=True)).measured[0]
    rows = {row.name: row for row in latency.operations}
    assert rows["out"].operation == "relu"
    assert rows["out"].accelerator == "neural engine"
    assert rows["out"].seconds == pytest.approx(0.0015)


def test_a_device_lost_in_the_middle_keeps_what_was_measured(
    phone: dict[str, Any], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "fail_after", 8)
    result = measure(subject)
    assert not result.complete
    assert "The device was disconnected" in result.ended
    assert len(result.measured[0].samples_s) == 4
    assert result.measured[0].stopped is Stopped.INTERRUPTED
    assert Session.stopped == 1


def test_a_device_lost_at_once_is_an_error(
    phone: dict[str, Any], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LoadedModel, "fail_after", 1)
    with pytest.raises(DeviceError, match="could not go on"):
        measure(subject)
    assert Session.stopped == 1


def test_ctrl_c_keeps_what_was_measured(
    phone: dict[str, Any], subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = LoadedModel.predict

    async def predict(self: LoadedModel, inputs: dict[str, Any], state: Any = None) -> dict[str, Any]:
        if LoadedModel.predicted == 6:
            raise KeyboardInterrupt
        return await taken(self, inputs, state)

    monkeypatch.setattr(LoadedModel, "predict", predict)
    result = measure(subject)
    assert (result.complete, result.ended) == (False, "interrupted")
    assert len(result.measured[0].samples_s) == 2
    assert Session.stopped == 1


@pytest.mark.parametrize(
    ("devices", "name", "words"),
    [
        ([], None, "no iPhone and no iPad"),
        ([_listed("TV", "appleTV")], None, "no iPhone and no iPad"),
        ([_listed("A", state="unavailable")], None, "A (unavailable)"),
        ([_listed("A")], "B", "There is no such device"),
        ([_listed("A"), _listed("B", "iPad")], None, "--device 'ios:A'"),
    ],
)
def test_a_device_that_cannot_be_used_is_an_error_with_the_next_step(
    mac: Callable[..., None], devices: list[dict[str, Any]], name: str | None, words: str
) -> None:
    mac(*devices)
    with pytest.raises(DeviceError) as caught:
        find_device(name)
    assert words in str(caught.value)


def test_one_of_several_devices_is_named(mac: Callable[..., None]) -> None:
    mac(_listed("A"), _listed("My iPad", "iPad"))
    assert find_device("My iPad").identifier == "ID-My iPad"


def test_without_devicectl_the_error_says_where_it_is(
    mac: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="cannot be listed") as caught:
        find_device(None)
    assert "xcode-select -p" in str(caught.value)


def test_elsewhere_than_on_a_mac_it_says_so(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ios.platform, "system", lambda: "Linux")
    with pytest.raises(DeviceError, match="from a Mac only"):
        measure(subject)


def test_other_files_and_images_are_skipped_with_the_reason(phone: dict[str, Any], subject: Subject) -> None:
    other = replace(subject, name="m.onnx", target=Target.ONNX)
    blind = replace(subject, name="without input")
    result = measure_on_ios(None, [other, blind, subject], PROTOCOL, DeviceOptions(), feeds=FEEDS)
    assert [one.artifact for one in result.skipped] == ["m.onnx", "without input"]
    with pytest.raises(DeviceError, match="nothing that an iPhone or iPad can run"):
        measure(other)


def test_an_accelerator_of_another_driver_is_refused(mac: Callable[..., None], subject: Subject) -> None:
    with pytest.raises(UsageError, match="no such accelerator"):
        measure(subject, accelerators=("gpu",))
