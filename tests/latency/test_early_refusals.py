"""A wrong argument is refused before anything heavy is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bench_cases import write_onnx

# Ends with the command's own exit code, or with 99 where PyTorch was imported on the way.
PROGRAM = """
import sys
from deploykit.cli.main import run_command
sys.argv = ["deploykit", *sys.argv[1:]]
try:
    run_command()
finally:
    if "torch" in sys.modules:
        sys.stderr.write("torch was imported")
        raise SystemExit(99)
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("bench", "gone.onnx", "--threads", "1"), "There is no such file"),
        (("bench", "m.onnx", "--max-seconds", "-1"), "--max-seconds is out of range"),
        (("bench", "m.onnx", "--device", "toaster"), "There is no such device"),
        (("bench", "m.onnx", "--device", "adb"), "adb is not on the PATH"),
        (("bench", "m.onnx", "--affinity", "4096"), "--affinity names a core"),
        (("bench", "m.onnx", "--accelerator", "gpu"), "no such accelerator"),
        (("compare", "m.onnx"), "Two things are compared"),
        (("compare", "m.onnx", "gone.onnx"), "There is no such file"),
        (("compare", "m.onnx", "m.onnx"), "given twice"),
    ],
)
def test_nothing_heavy_is_imported_to_refuse_an_argument(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    write_onnx(tmp_path / "m.onnx")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
