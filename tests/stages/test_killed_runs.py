"""Pipelines that are killed: whatever the moment, the next run ends in the same artifacts; nobody goes on writing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploykit.artifact import find_artifacts, require_unchanged

COMMAND = "import sys; from deploykit.cli.main import main; sys.argv[0] = 'deploykit'; main()"
ROOT = Path(__file__).resolve().parents[2]


def start(recipe: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start the command in a session of its own, so that a signal to its group reaches what a terminal's would."""
    arguments = ["pipeline", str(recipe), "-o", str(folder), "--skip", "bench,report", "--jobs", "1", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def kill_after(seconds: float, process: subprocess.Popen[bytes]) -> bool:
    """Kill the process group after so many seconds; return whether it was still at work. Nothing of it may live on."""
    try:
        process.communicate(timeout=seconds)
        return False
    except subprocess.TimeoutExpired:
        pass
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    return True


def contents(folder: Path) -> dict[str, str]:
    """Path and content hash of every artifact, whose files are as their manifests say."""
    found = [require_unchanged(one) for one in find_artifacts(folder)]
    return {one.path.relative_to(folder).as_posix(): one.content_hash for one in found}


def until_it_is_done(recipe: Path, folder: Path, *options: str) -> tuple[int, str]:
    process = start(recipe, folder, *options)
    out, err = process.communicate(timeout=600)
    assert b"Traceback" not in err, err.decode()
    return process.returncode, out.decode()


def test_a_run_that_is_killed_ends_in_the_same_artifacts(finished, tmp_path):
    folder = tmp_path / "artifacts"
    options = ("--precision", "fp32")
    process = start(finished.recipe, folder, *options)
    assert process.stderr is not None
    assert any(b"tiny/export/onnx-fp32: begins" in line for line in process.stderr)
    assert kill_after(random.Random(20).uniform(0, 1), process)
    # Whatever there is by now is whole.
    assert contents(folder).items() <= contents(finished.folder).items()
    assert until_it_is_done(finished.recipe, folder, *options)[0] == 0
    assert contents(folder) == contents(finished.folder)
    assert [one.name for one in (folder / ".pipeline" / "work").iterdir()] == ["tmp"]


@pytest.mark.full
def test_twenty_kills_at_random_moments(tmp_path, small_recipe):
    wanted, folder = tmp_path / "wanted", tmp_path / "artifacts"
    options = ("--target", "onnx,tflite", "--samples", "2", "--clips", "1")
    started = time.monotonic()
    assert until_it_is_done(small_recipe, wanted, *options)[0] == 0
    whole = time.monotonic() - started
    draw, kills = random.Random(21), 0
    for _ in range(60):
        if kills == 20:
            break
        if not kill_after(draw.uniform(0, whole / 3), start(small_recipe, folder, *options)):
            # It had come to its end before: once more from the beginning.
            assert contents(folder) == contents(wanted)
            shutil.rmtree(folder)
            continue
        kills += 1
        assert contents(folder).items() <= contents(wanted).items()
    assert kills == 20
    assert until_it_is_done(small_recipe, folder, *options)[0] == 0
    assert contents(folder) == contents(wanted)


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(finished, tmp_path):
    page = tmp_path / "artifacts" / "report.html"
    page.parent.mkdir()
    page.write_text("Ready")
    process = start(finished.recipe, page.parent, "--json")
    assert process.stderr is not None
    for line in process.stderr:
        if b"tiny/export/onnx-fp32: begins" in line:
            break
    family = psutil.Process(process.pid).children(recursive=True)
    # From the first stage on, so that none stands there after kill -9 either.
    assert not page.exists()
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert b"the same command goes on from here" in err
    assert b"Traceback" not in err
    body = json.loads(out)["body"]
    assert body["exit_code"] == 130
    assert not page.exists()
    assert body["notes"] == ["removed report.html of an earlier run: it is not of what there is now"]
    kept = json.loads((tmp_path / "artifacts" / "pipeline.json").read_bytes())
    assert kept["body"] == body
    found = {one["stage"]: one["outcome"] for one in body["stages"]}
    assert found["tiny/verify-reparam"] == "done"
    assert found["tiny/export/onnx-fp32"] == "interrupted"
    _, alive = psutil.wait_procs(family, timeout=60)
    assert not alive
    assert not contents(tmp_path / "artifacts")
