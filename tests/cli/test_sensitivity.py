"""deploykit sensitivity: a layer whose channels have unlike ranges is found, on the real file of each target."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

COMMAND = ("sensitivity", "small/small.toml", "--calibration-images", "8", "--estimator", "min-max")


def widen(checkpoint, factor):
    """Let one channel of the first layer be ``factor`` times as wide, and the layer that reads it take that back."""
    tensors = torch.load(checkpoint, weights_only=True)
    tensors["stem.1.weight"][0] *= factor
    tensors["stem.1.bias"][0] *= factor
    tensors["depthwise.0.weight"][0] /= factor
    torch.save(tensors, checkpoint)


def measured(deploykit, *arguments):
    result = deploykit(*COMMAND, *arguments, "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert record["kind"] == "sensitivity"
    return record["body"] | {"printed": result.out}


@pytest.mark.parametrize("target", ["onnx", pytest.param("tflite", marks=pytest.mark.full)])
def test_the_layers_around_one_wide_channel_are_the_worst(deploykit, small, target):
    widen(small.parent / "small.pt", 1000.0)
    found = measured(deploykit, "--target", target, "--equalize", "off")
    first, second, *others = found["layers"]
    assert {one["layer"].partition(".")[0] for one in (first, second)} == {"stem", "depthwise"}
    assert first["operations"] >= 1
    rest = [one["measured"] for one in others if one["measured"]]
    assert len(rest) >= 4
    assert second["measured"]["drop_points"] > max(one["drop_points"] for one in rest) + 5
    assert second["measured"]["snr_db"] < min(one["snr_db"] for one in rest) - 10
    assert found["whole"]["snr_db"] < first["measured"]["snr_db"] + 3


def test_equalized_channels_lose_little_and_only_the_worst_are_measured(deploykit, small, small_onnx, reported):
    widen(small.parent / "small.pt", 1000.0)
    found = measured(deploykit, "--target", "onnx", "--equalize", "on", "--layers", "2")
    assert sum(one["measured"] is not None for one in found["layers"]) == 2
    assert found["whole"]["snr_db"] > 15
    page, note = reported(shutil.copytree(small_onnx, small.parent / "files"), found["printed"])
    assert "small onnx int8: what each layer costs" in page
    for one in found["layers"]:
        assert one["layer"] in page
        assert f"{one['simulated_snr_db']:.1f}" in page
    assert f"loses {found['whole']['drop_points']:.3f} points of mIoU" in page
    assert "| small onnx fp32 |" in note


def test_the_table_says_where_the_images_come_from(deploykit, small, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    result = deploykit(*COMMAND, "--target", "onnx", "--equalize", "off", "--layers", "1")
    assert result.code == 0, result.err
    assert "small alone in integers, onnx int8; 2 of 8 images: synthetic portraits" in " ".join(result.out.split())
    for text in ("mIoU lost", "all layers", "min-max"):
        assert text in result.out
    assert "layer 1 of 1" in result.err
    assert "layer 1 of 1" not in result.out


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("--target", "onnx", "--precision", "fp16"), ("--precision fp16", "--precision int8")),
        (("--target", "onnx", "--precision", "w8a16"), ("no w8a16 files", "--precision int8")),
        (("--target", "onnx", "--layers", "0"), ("--layers", "1 or more")),
        (("--target", "onnx", "--calibration", "missing"), ("missing",)),
    ],
)
def test_what_has_no_meaning_is_refused_with_exit_code_2(deploykit, small, arguments, texts):
    result = deploykit(*COMMAND, *arguments)
    assert result.code == 2
    assert result.out == ""
    for text in texts:
        assert text in result.err
    assert "Traceback" not in result.err
