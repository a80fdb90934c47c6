"""The diagnosis: packages, tested versions and devices, with stand-in vendor programs on the PATH."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from deploykit.cli.doctor import doctor
from deploykit.doctor import PackageState, diagnose, read_pins
from deploykit.latency.drivers import reachable
from deploykit.latency.drivers.reachable import android_devices, apple_devices
from deploykit.targets import table
from deploykit.vocab import Target

DEVICES = {
    "result": {
        "devices": [
            {
                "deviceProperties": {"name": "Test phone"},
                "hardwareProperties": {"marketingName": "iPhone 15"},
                "connectionProperties": {"pairingState": "paired"},
            }
        ]
    }
}


def _stand_in(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    program.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on the PATH, before the shell's own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def test_every_target_is_listed_with_its_packages_and_versions(tmp_path: Path) -> None:
    found = diagnose(tmp_path / "none.txt")
    assert [state.target for state in found.targets] == list(Target)
    for state in found.targets:
        assert [one.distribution for one in state.packages] == list(table.TARGETS[state.target].packages.values())
    onnx = found.targets[0]
    assert onnx.ready
    assert onnx.packages[0].installed == version("onnx")
    assert not found.constraints_found
    assert found.cores_usable >= 1
    assert found.memory_bytes > 0


def test_a_missing_package_comes_with_the_command_that_adds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    row = table.TARGETS[Target.TFLITE]
    packages = {**row.packages, "no_such_module_here": "no-such-distribution"}
    monkeypatch.setitem(table.TARGETS, Target.TFLITE, type(row)(**{**vars(row), "packages": packages}))
    state = next(one for one in diagnose(tmp_path / "none.txt").targets if one.target is Target.TFLITE)
    assert not state.ready
    assert not state.measurable
    assert state.reason == "not installed: no-such-distribution"
    assert state.next_step == "pip install 'deploykit[tflite]'"
    assert state.packages[-1] == PackageState("no-such-distribution", None, None)


@pytest.mark.skipif(sys.platform == "darwin", reason="Core ML runs here")
def test_core_ml_is_not_measurable_off_macos(tmp_path: Path) -> None:
    state = next(one for one in diagnose(tmp_path / "none.txt").targets if one.target is Target.COREML)
    assert not state.measurable
    assert "macOS" in state.reason


def test_versions_other_than_tested_are_named(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text(
        f"# tested\nnumpy==0.1\nONNX=={version('onnx')}\nno-such-distribution==1.0\n"
        f"torch=={version('torch').partition('+')[0]} ; python_version >= '3.11'\n-r other.txt\n",
        "utf-8",
    )
    found = diagnose(pins)
    assert found.constraints_found
    assert found.differences == (PackageState("numpy", version("numpy"), "0.1"),)
    assert found.torch.tested == version("torch").partition("+")[0]


def test_pins_are_read_with_markers_comments_and_any_spelling(tmp_path: Path) -> None:
    pins = tmp_path / "constraints.txt"
    pins.write_text("Ai_Edge.LiteRT == 2.3.0  # runtime\nopen>=1\n\nx==1;python_version>'3'\n", "utf-8")
    assert read_pins(pins) == {"ai-edge-litert": "2.3.0", "x": "1"}


def test_no_adb_says_how_to_get_it(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    assert android_devices("Linux").next_step == "sudo apt install adb"
    assert android_devices("Darwin").next_step == "brew install android-platform-tools"
    assert not android_devices("Linux").ready


@pytest.mark.parametrize(
    ("listing", "ready", "found", "reason"),
    [
        (r"A1\tdevice\nB2\toffline\n", True, ("A1: device", "B2: offline"), ""),
        (r"A1\tunauthorized\n", False, ("A1: unauthorized",), "no device has allowed this machine"),
        (r"A1\toffline\n", False, ("A1: offline",), "no device is ready"),
        (r"A1\tno permissions (missing udev rules?)\n", False, None, "no device is ready"),
        (r"\n", False, (), "no device is connected"),
    ],
)
def test_adb_devices_are_listed_with_their_state(
    programs: Path, listing: str, ready: bool, found: tuple[str, ...] | None, reason: str
) -> None:
    _stand_in(programs, "adb", f"printf 'List of devices attached\\n{listing}\\n'")
    state = android_devices("Linux")
    assert (state.ready, state.reason) == (ready, reason)
    if found is not None:
        assert state.found == found


def test_an_adb_that_fails_is_quoted(programs: Path) -> None:
    _stand_in(programs, "adb", "echo 'cannot bind to port' >&2; exit 1")
    assert android_devices("Linux").reason == "adb failed: cannot bind to port"


def test_an_adb_that_hangs_is_given_up(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachable, "_TIMEOUT_S", 0.2)
    _stand_in(programs, "adb", "exec sleep 20")
    assert android_devices("Linux").reason == "adb did not answer within 0.2 s"


def test_an_adb_that_cannot_be_started_is_said(programs: Path) -> None:
    (programs / "adb").write_bytes(b"\0not a program")
    (programs / "adb").chmod(0o755)
    assert "cannot be started" in android_devices("Linux").reason


def test_ios_needs_macos() -> None:
    assert apple_devices("Linux").reason == "needs macOS"


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        (json.dumps(DEVICES), ("Test phone: iPhone 15, paired",)),
        ('{"result": {"devices": []}}', ()),
        ('{"result": {"devices": [{}]}}', ("unnamed: unknown model, unknown state",)),
        ("not JSON", ()),
        ('{"error": 1}', ()),
    ],
)
def test_ios_devices_are_those_that_xcode_lists(programs: Path, listing: str, found: tuple[str, ...]) -> None:
    _stand_in(programs, "xcrun", f"printf '%s' '{listing}' > \"$5\"")
    state = apple_devices("Darwin")
    assert state.found == found
    assert state.ready is bool(found)


def test_an_xcode_without_devicectl_is_quoted(programs: Path) -> None:
    _stand_in(programs, "xcrun", "echo 'unable to find utility devicectl' >&2; exit 72")
    assert apple_devices("Darwin").reason == "xcrun failed: unable to find utility devicectl"


def test_no_xcode_says_how_to_get_it(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    assert "xcode-select" in apple_devices("Darwin").next_step


def test_the_command_prints_tables_or_one_record(capsys: pytest.CaptureFixture[str]) -> None:
    doctor()
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("Machine", "Targets", "Devices", "onnx", "adb"))
    doctor(as_json=True)
    record = json.loads(capsys.readouterr().out)
    assert record["kind"] == "diagnosis"
    assert [state["target"] for state in record["body"]["targets"]] == list(Target)


def test_the_diagnosis_imports_no_framework() -> None:
    heavy = "{'torch', 'coremltools', 'onnx', 'onnxruntime', 'litert_torch', 'cv2', 'numpy'}"
    script = f"import sys, deploykit.doctor as d; d.diagnose(); print(sorted({heavy} & set(sys.modules)))"
    folder = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    assert done.stdout.strip() == "[]"
