"""``deploykit pipeline`` as a user sees it: tables, JSON, exit codes, and how little an up-to-date run costs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import psutil
from stages.test_killed_runs import COMMAND, ROOT

from deploykit.cli.pipeline_table import show

# What takes seconds to import, or says that a network was touched.
HEAVY = ("torch", "numpy", "scipy", "cv2", "onnx", "onnxruntime", "coremltools")
WATCHED = f"""
import atexit, json, os, sys
def tell():
    heavy = [name for name in {HEAVY!r} if name in sys.modules]
    cpu = os.times()
    sys.stderr.write("\\n" + json.dumps({{"heavy": heavy, "cpu_s": cpu.user + cpu.system}}))
atexit.register(tell)
{COMMAND}
"""


def run(program, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, "pipeline", *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=300)


def test_with_nothing_to_do_it_is_quick_and_says_so(finished, copied):
    arguments = (finished.recipe, "-o", copied, "--skip", "bench,report", "--precision", "fp32", "--json")
    run(WATCHED, *arguments)
    done = run(WATCHED, *arguments)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stderr.splitlines()[-1])
    assert told["heavy"] == []
    # The figure is under 3 s of wall time; its processor time does not depend on what else runs.
    assert told["cpu_s"] < 3
    assert "Nothing to do: 4 stages are up to date; 3 skipped." in done.stderr
    body = json.loads(done.stdout)["body"]
    assert body["passed"]
    assert body["nothing_to_do"]
    assert [one["outcome"] for one in body["stages"]] == [*["up to date"] * 4, *["skipped"] * 3]


def test_tables_show_artifacts_and_stages(finished, copied):
    done = run(COMMAND, finished.recipe, "-o", copied, "--skip", "bench,gate,report", "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    (artifact,) = (line for line in done.stdout.splitlines() if "onnx" in line)
    assert artifact.count("up to date") == 1
    assert "points" in artifact
    (checked,) = (line for line in done.stdout.splitlines() if "tiny/verify-reparam" in line)
    # It took the time of an earlier run.
    assert re.search(r"up to date +│ +- │", checked)
    assert "gate skipped: --skip gate" in done.stdout


def test_in_a_narrow_terminal_no_word_is_broken(finished, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    show(finished.run, tables=True)
    printed = capsys.readouterr().out
    assert all(len(line) <= 80 for line in printed.splitlines() if set(line) & set("│┃"))
    for whole in ("export failed", "done", "tiny/verify-reparam", "precision", "latency"):
        assert whole in printed
    assert "minus" not in printed


def test_mistakes_are_named_before_anything_is_done(finished, tmp_path):
    for arguments, said in (
        (("--target", "onx"), "onx"),
        (("--precision", "fp32,"), "an empty name"),
        (("--skip", "export"), "verify, evaluate, bench, gate, report"),
        (("--precision", "palette4"), "has no palette4 files"),
        (("--max-seconds", "nan"), "--max-seconds is out of range"),
    ):
        done = run(COMMAND, finished.recipe, "-o", tmp_path / "new", *arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_bug_in_a_process_names_the_stage_and_shows_its_traceback(finished, tmp_path):
    """A process that is killed while it works, as where memory runs out, is a bug's exit code with the stage's name."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", COMMAND, "pipeline", str(finished.recipe), "-o", str(tmp_path), "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "verify-reparam: begins" in line:
            break
    (worker,) = psutil.Process(process.pid).children()
    worker.kill()
    _, err = process.communicate(timeout=300)
    assert process.returncode == 70
    assert "tiny/verify-reparam: failed" in err
    assert "SIGKILL" in err
    assert "not run: tiny/verify-reparam failed" in err


def test_help_imports_nothing_heavy():
    done = run(WATCHED, "--help")
    assert done.returncode == 0
    assert json.loads(done.stderr.splitlines()[-1])["heavy"] == []
