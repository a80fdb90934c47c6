"""The command on real small files, each run by its own runtime in the process that compares them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.latency import instructions

CHANNELS = 32
NETWORK = """
import os

from torch import nn


class Fatal(nn.Module):
    def __init__(self):
        super().__init__()
        self.point = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        os.abort()
"""


def chain(path: Path, convolutions: int, side: int = 24) -> Path:
    """Write an ONNX file of so many 3x3 convolutions on 1x32xSIDExSIDE."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for index in range(convolutions):
        weight = rng.normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32) / 20
        weights.append(numpy_helper.from_array(weight, f"w{index}"))
        nodes.append(helper.make_node("Conv", [f"x{index}", f"w{index}"], [f"x{index + 1}"], pads=[1, 1, 1, 1]))
    first, last = (
        helper.make_tensor_value_info(f"x{index}", TensorProto.FLOAT, [1, CHANNELS, side, side])
        for index in (0, convolutions)
    )
    graph = helper.make_graph(nodes, "chain", [first], [last], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def test_four_times_the_work_is_slower_and_may_fail_the_command(deploykit: Callable, here: Path) -> None:
    chain(here / "[a].onnx", 1)
    chain(here / "b.onnx", 4)
    result = deploykit("compare", "[a].onnx", "b.onnx", "--max-seconds", "16", "--fail-if", "slower")
    assert result.code == 1
    assert "Verdict: B is slower than A, +" in result.out
    assert "A: [a].onnx" in result.out
    assert "A once more / A" in result.out
    assert "Noise floor, from A against itself in this run" in result.out
    assert "operations" in result.out
    assert "4.000" in result.out
    assert "1 thread" in result.err
    assert "rounds of new sessions" in result.err


def test_a_copy_is_neither_faster_nor_slower_and_the_record_has_everything(deploykit: Callable, here: Path) -> None:
    one = chain(here / "one.onnx", 2)
    shutil.copy(one, here / "two.onnx")
    result = deploykit("compare", "one.onnx", "two.onnx", "--max-seconds", "4", "--json")
    assert result.code == 0
    record = json.loads(result.out)
    assert (record["deploykit"], record["kind"]) == (1, "compare")
    body = record["body"]
    assert body["judgement"]["verdict"] in ("no difference above the margin", "inconclusive")
    assert body["judgement"]["margin"] == 0.02
    assert body["first"]["content_hash"] == body["second"]["content_hash"]
    assert body["first"]["figures"] == body["second"]["figures"]
    assert body["first"]["figures"]["operations"] == 2
    assert body["threads"] == 1
    assert len(body["affinity"]) <= 1
    # Without the option it takes up to 30 s, and a busy machine may take its time for the last round.
    assert body["seconds"] < 20
    assert body["complete"]
    assert str(here) not in result.out
    for found in body["rounds"]:
        samples = np.array(found["samples_s"])
        assert sorted(found["order"]) == [0, 1, 2]
        assert samples.ndim == 3
        assert samples.shape[-1] == 3
        assert np.shape(found["away_s"]) == samples.shape
        assert (samples > 0).all()
        assert (samples >= np.array(found["away_s"])).all()


def test_an_artifact_runs_on_photos_against_its_network_in_pytorch(
    deploykit: Callable, small: Path, small_onnx: Path, here: Path, reported: Callable
) -> None:
    cv2.imwrite(str(here / "photo.png"), np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    arguments = ("--images", "photo.png", "--max-seconds", "3", "--json")
    result = deploykit("compare", small_onnx, "pytorch:small/small.toml", *arguments)
    assert result.code == 0
    body = json.loads(result.out)["body"]
    assert body["second"]["name"] == "PyTorch eager: small"
    assert body["second"]["runtime"].startswith("PyTorch ")
    assert body["second"]["figures"] == {}
    assert body["first"]["figures"]["operations"] > 0
    assert body["first"]["median_s"] > 0
    page, _ = reported(shutil.copytree(small_onnx, here / "files"), result.out)
    assert f"PyTorch eager: small against {body['first']['name']}" in page
    # Where the machine is busy there may be too few rounds for an effect.
    effect = body["judgement"]["effect"]
    assert (f"{effect['ratio']:.3f}" if effect else "not known") in page
    assert body["judgement"]["verdict"] in page
    chain(here / "bare.onnx", 1)
    refused = deploykit("compare", "bare.onnx", "pytorch:small/small.toml", *arguments)
    assert refused.code == 2
    assert "--images" in refused.err


def test_a_folder_of_several_artifacts_is_no_side(deploykit: Callable, small_onnx: Path, here: Path) -> None:
    for name in ("x", "y"):
        shutil.copytree(small_onnx, here / "both" / name)
    chain(here / "a.onnx", 1)
    result = deploykit("compare", "a.onnx", "both")
    assert result.code == 2
    assert "holds several artifacts" in result.err


def test_inputs_of_other_sizes_are_refused(deploykit: Callable, here: Path) -> None:
    chain(here / "a.onnx", 1)
    chain(here / "b.onnx", 1, side=16)
    result = deploykit("compare", "a.onnx", "b.onnx")
    assert result.code == 2
    assert "do not take inputs of the same size" in result.err
    assert "[1, 32, 16, 16]" in result.err


def test_what_ends_its_process_is_an_error_that_names_it(deploykit: Callable, small: Path, here: Path) -> None:
    import torch

    folder = small.parent
    (folder / "fatal_network.py").write_text(NETWORK, "utf-8")
    torch.save({"point.weight": torch.zeros(2, 3, 1, 1), "point.bias": torch.zeros(2)}, folder / "fatal.pt")
    (folder / "fatal.toml").write_text(
        f"""
format_version = 1
name = "fatal"
description = "ends its process"
license = "Apache-2.0"
source = "this test"
[network]
factory = "fatal_network:Fatal"
[[inputs]]
name = "image"
shape = [1, {CHANNELS}, 24, 24]
kind = "tensor"
source = "this test"
[[outputs]]
name = "logits"
meaning = "scores"
classes = ["background", "portrait"]
[checkpoint]
path = "fatal.pt"
""",
        "utf-8",
    )
    chain(here / "a.onnx", 1)
    result = deploykit("compare", "a.onnx", "pytorch:small/fatal.toml")
    assert result.code == 2
    assert "ended on its own" in result.err
    assert "PyTorch eager: fatal" in result.err
    assert "SIGABRT" in result.err
    assert "Traceback" not in result.err


def test_a_damaged_file_is_the_runtimes_own_error(deploykit: Callable, here: Path) -> None:
    chain(here / "a.onnx", 1)
    (here / "b.onnx").write_bytes(b"not a model")
    result = deploykit("compare", "a.onnx", "b.onnx")
    assert result.code == 2
    assert "ONNX Runtime cannot load the file." in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("a.onnx", "a.onnx"), "given twice"),
        (("a.onnx", "./a.onnx"), "given twice"),
        (("pytorch:sinet", "pytorch:sinet"), "given twice"),
        (("a.onnx", "gone.onnx"), "no such file"),
        (("a.onnx",), "Two things are compared"),
        (("a.onnx", "b.onnx", "c.onnx"), "Two things are compared"),
        (("a.onnx", "pytorch:sinett"), "no such recipe"),
        (("a.onnx", "m.mlpackage"), "cannot be measured on this machine"),
        (("a.onnx", "b.onnx", "--margin", "two"), "--margin is no number"),
        (("a.onnx", "b.onnx", "--margin", "0%"), "--margin is out of range"),
        (("a.onnx", "b.onnx", "--max-seconds", "0"), "--max-seconds is out of range"),
        (("a.onnx", "b.onnx", "--threads", "0"), "--threads is out of range"),
        (("a.onnx", "b.onnx", "--images", "gone"), "images cannot be read"),
    ],
)
def test_each_wrong_argument_is_one_error_before_anything_runs(
    deploykit: Callable, here: Path, arguments: tuple[str, ...], said: str
) -> None:
    chain(here / "a.onnx", 1)
    chain(here / "b.onnx", 2)
    (here / "m.mlpackage").mkdir()
    result = deploykit("compare", *arguments)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err


def test_a_missing_valgrind_is_said_before_anything_runs(
    deploykit: Callable, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain(here / "a.onnx", 1)
    chain(here / "b.onnx", 2)
    monkeypatch.setenv("PATH", "")
    result = deploykit("compare", "a.onnx", "b.onnx", "--instructions")
    assert result.code == 2
    assert "valgrind is missing" in result.err
    assert "apt-get install valgrind" in result.err


def test_ctrl_c_shows_what_there_was_until_then(here: Path) -> None:
    shutil.copy(chain(here / "one.onnx", 2), here / "two.onnx")
    # No verdict is possible within so small a margin.
    command = [sys.executable, "-m", "deploykit", "compare", "one.onnx", "two.onnx", "--margin", "0.000001"]
    process = subprocess.Popen(
        [*command, "--max-seconds", "16"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert process.stderr is not None
    # The second of these lines comes after the first look.
    for _ in range(2):
        assert any("running in turn" in line or "running on" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Interrupted: this is what there was until then." in out
    assert "Verdict: inconclusive" in out
    assert "Traceback" not in err


def test_ctrl_c_while_instructions_are_counted_keeps_the_times(
    deploykit: Callable, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(chain(here / "one.onnx", 2), here / "two.onnx")

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    # Stands for Ctrl-C in the minute that valgrind takes.
    monkeypatch.setattr("deploykit.latency.instructions.require_valgrind", lambda: "valgrind")
    monkeypatch.setattr("deploykit.comparison.count_instructions", interrupted)
    result = deploykit("compare", "one.onnx", "two.onnx", "--max-seconds", "2", "--instructions", "--json")
    assert result.code == 130
    body = json.loads(result.out)["body"]
    assert body["complete"] is False
    assert body["first"]["median_s"] > 0
    assert body["first"]["instructions"] is None


@pytest.mark.full
@pytest.mark.skipif(instructions.shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_instructions_grow_with_the_work(deploykit: Callable, here: Path) -> None:
    chain(here / "a.onnx", 2)
    chain(here / "b.onnx", 4)
    result = deploykit("compare", "a.onnx", "b.onnx", "--max-seconds", "4", "--instructions", "--json")
    assert result.code == 0
    body = json.loads(result.out)["body"]
    first, second = body["first"]["instructions"], body["second"]["instructions"]
    macs = body["first"]["figures"]["macs"]
    assert macs / 16 < first < macs
    assert 1.5 < second / first < 2.2
    assert any("AVX-512" in note for note in body["notes"])
