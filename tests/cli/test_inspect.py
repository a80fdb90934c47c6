"""deploykit inspect, as a person and as a script sees it."""

from __future__ import annotations

import json
import shutil

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from video_case import write_video_case

PIXELS = 32 * 48
MACS = 234 * PIXELS


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return write_video_case(tmp_path_factory.mktemp("video"))


@pytest.fixture
def small_file(here):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 4, 6, 8])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 2, 6, 8])
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2, 4, 1, 1], [1.0] * 8)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Blur", ["b"], ["scores"], domain="com.example"),
    ]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.example", 1)]
    graph = helper.make_graph(nodes, "[small]", [image], [scores], [weight])
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), "small.onnx")
    return here / "small.onnx"


def words(text):
    """``text`` with every run of blanks and lines of a table as one blank."""
    return " ".join(text.replace("│", " ").replace("┃", " ").split())


def test_a_network_as_tables(deploykit, network, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    result = deploykit("inspect", str(network), "--layers", "1")
    assert result.code == 0, result.err
    text = words(result.out)
    assert "weights: follow.pt, sha256" in text
    assert "Cost at image 1x3x32x48, prior 1x1x32x48, in the convention macs" in text
    assert f"training form scores, edge 249 {MACS:,} 0.074 MB" in text
    assert f"deploy form scores 243 {MACS:,} 0.074 MB" in text
    assert "1 multiply-accumulate counts 1" in text
    assert "Not counted in the deploy form: relu 1." in text
    assert f"mix conv2d {216 * PIXELS:,} 92.3% " in text
    assert f"1 others {18 * PIXELS:,} 7.7%" in text
    assert "batch_norm not counted 1 0" in text
    assert "cat moves values 1 1" in text
    assert "fold_batch_norm 1 BatchNorm folded into aten.conv2d.default" in text
    assert "softmax probability of hair in scores of the frame before" in text
    assert "bgr pixels 0 to 255, letterbox, bilinear, then (pixel - [104, 117, 123]) * [0.017, 0.018, 0.019]" in text
    assert "edge 1x1x32x48 - no for training only" in text


def test_a_network_as_json_holds_every_convention_and_names_the_chosen_one(deploykit, network):
    result = deploykit("inspect", str(network), "--convention", "portraitnet-paper", "--json", "--size", "16x16")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert (record["kind"], record["deploykit"]) == ("inspect", 1)
    body = record["body"]
    assert (body["subject"], body["convention"], body["recipe"]) == ("network", "portraitnet-paper", "follow")
    assert "activation function" in body["convention_counts"]
    forms = body["cost"]["forms"]
    assert [form["merged"] for form in forms] == [False, False, True, True]
    assert forms[0]["cost"]["macs"] == {
        "macs": 234 * 256,
        "conv-macs": 234 * 256,
        "portraitnet-paper": (234 + 3 + 12 + 6) * 256,
        "mmengine": (234 + 12) * 256,
    }
    assert body["inputs"][1]["shape"] == [1, 1, 16, 16]


def test_an_unknown_operation_makes_the_total_a_lower_bound(deploykit, small_file):
    result = deploykit("inspect", "small.onnx")
    assert result.code == 0, result.err
    text = words(result.out)
    assert f"macs: {8 * 48}" in text
    assert "A LOWER BOUND: how much these compute is not known: com.example.Blur 1." in text
    assert "no manifest of deploykit describes it" in text
    assert "onnx, " in text
    assert "opset 18" in text
    assert "Operations: 3, of them 0 transposes" in text
    assert "com.example.Blur unknown 1" in text
    assert "float32 1 8 32" in text
    assert "Quantised or compressed: nothing" in text


def test_a_file_as_json(deploykit, small_file):
    body = json.loads(deploykit("inspect", "small.onnx", "--json").out)["body"]
    assert (body["subject"], body["macs"], body["unknown"]) == ("file", 8 * 48, {"com.example.Blur": 1})
    assert body["contents"]["inputs"][0]["shape"] == [1, 4, 6, 8]
    refused = deploykit("inspect", "small.onnx", "--json", "--convention", "mmengine")
    assert json.loads(refused.out)["body"]["macs"] is None


def test_a_convention_of_training_forms_is_refused_for_a_file_with_the_reason(deploykit, small_file):
    result = deploykit("inspect", "small.onnx", "--convention", "mmengine")
    assert result.code == 0
    assert "mmengine: not counted in a file, since it counts BatchNorms, pooling and resizing" in words(result.out)


def test_the_project_file_names_the_network_and_a_checkpoint_its_weights(deploykit, network, here):
    shutil.copytree(network.parent, here / "network")
    (here / "deploykit.toml").write_text('recipe = "network/follow.toml"\n')
    shutil.copy(network.parent / "follow.pt", here / "mine.pt")
    for arguments in ([], ["mine.pt"]):
        result = deploykit("inspect", *arguments, "--json")
        assert result.code == 0, result.err
        body = json.loads(result.out)["body"]
        assert (body["recipe"], body["checkpoint"].endswith("mine.pt")) == ("follow", bool(arguments))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nosuch"], ("no such recipe, checkpoint or exported file", "sinet", "deploykit recipes")),
        (["absent.onnx"], ("no such recipe, checkpoint or exported file",)),
        (["text.txt"], ("neither a checkpoint nor", "a text file", ".mlpackage")),
        (["text.onnx"], ("no ONNX model, or it is damaged",)),
        (["text.tflite"], ("no TFLite model, or it is damaged",)),
        (["."], ("no manifest",)),
        (["small.onnx", "--size", "64x64"], ("inspected as it is",)),
        (["small.onnx", "--checkpoint", "other.pth"], ("inspected as it is",)),
        (["other.pth", "--checkpoint", "other.pth"], ("two checkpoints",)),
        (["sinet", "--size", "7"], ("input size is not understood",)),
        (["sinet", "--convention", "flops"], ("portraitnet-paper",)),
        (["sinet", "--layers", "-1"], ("--layers",)),
    ],
)
def test_what_cannot_be_inspected_is_said_with_exit_code_2(deploykit, small_file, arguments, said):
    for name in ("text.txt", "text.onnx", "text.tflite"):
        (small_file.parent / name).write_text("hello, this is a text")
    torch.save({"layer.weight": torch.zeros(3, 3)}, small_file.parent / "other.pth")
    result = deploykit("inspect", *arguments)
    assert (result.code, result.out) == (2, "")
    for part in said:
        assert part in result.err
    assert "Traceback" not in result.err
