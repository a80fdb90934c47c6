"""The command when it is ended early: what was measured is shown, nothing stays behind, the exit code says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_cases import write_onnx

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="processes are looked for in /proc")


def _measuring(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a measurement without an end; return it, and what it says until it measures."""
    path = write_onnx(folder / "m.onnx")
    command = [
        sys.executable,
        "-m",
        "deploykit",
        "bench",
        str(path),
        "--runs",
        "100000000",
        "--max-seconds",
        "100000",
        "--json",
        "--no-startup",
    ]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if "measuring" in line:
            time.sleep(0.5)
            return process, said
    raise AssertionError(said)


def _agents(folder: Path) -> list[int]:
    """Return the processes that run the agent from below ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{folder}/deploykit-bench-".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def _interrupt(process: subprocess.Popen[str], folder: Path) -> None:
    process.send_signal(signal.SIGINT)


def _terminate(process: subprocess.Popen[str], folder: Path) -> None:
    process.send_signal(signal.SIGTERM)


def _kill_the_worker(process: subprocess.Popen[str], folder: Path) -> None:
    os.kill(max(_agents(folder)), signal.SIGKILL)


def _kill_all_agents(process: subprocess.Popen[str], folder: Path) -> None:
    for number in _agents(folder):
        os.kill(number, signal.SIGKILL)


@pytest.mark.parametrize(
    ("end", "code", "why"),
    [
        (_interrupt, 130, "interrupted"),
        (_kill_the_worker, 1, "SIGKILL"),
        pytest.param(_kill_all_agents, 1, "without a word", marks=pytest.mark.full),
        pytest.param(_terminate, 143, None, marks=pytest.mark.full),
    ],
)
def test_what_was_measured_is_shown_and_nothing_stays(
    tmp_path: Path, end: Callable[[subprocess.Popen[str], Path], None], code: int, why: str | None
) -> None:
    process, _ = _measuring(tmp_path)
    try:
        assert len(_agents(tmp_path)) == 2
        end(process, tmp_path)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, err
    assert "Traceback" not in err
    if why is not None:
        body = json.loads(out)["body"]
        assert body["complete"] is False
        assert why in body["ended"]
        assert f"ended early: {body['ended']}" in " ".join(err.split())
        (row,) = body["measured"]
        assert row["stopped"] == "interrupted"
        assert len(row["samples_s"]) == row["runs"] > 0
        assert row["interval_s"][0] <= row["median_s"] <= row["interval_s"][1]
    deadline = time.monotonic() + 10
    while _agents(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _agents(tmp_path) == []
    assert [path.name for path in tmp_path.glob("deploykit-bench-*")] == []
