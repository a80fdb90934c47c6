"""What the command line refuses of integers, before a checkpoint is loaded, with what would do."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "palette6", "--target", "coreml", "--max-drop", "0.1"], ["no effect", "--max-drop"]),
        (["--precision", "int8-weights", "--estimator", "mse"], ["no effect", "--estimator"]),
        (["--precision", "int8-weights", "--equalize", "on"], ["no effect", "--equalize"]),
        (["--precision", "w8a16", "--target", "tflite", "--equalize", "on"], ["no effect", "--equalize"]),
        (["--precision", "fp16", "--max-drop", "1"], ["no integers to choose"]),
        (["--precision", "int8", "--held-out", "-1"], ["--held-out"]),
        (["--precision", "int8", "--held-out", "129"], ["--held-out"]),
        (["--precision", "int8", "--max-drop", "nan"], ["--max-drop", "out of range"]),
        (["--precision", "w8a16", "--target", "onnx"], ["onnx has no w8a16", "16-bit integers", "--precision int8"]),
        (["--precision", "w8a16", "--target", "onnx,tflite"], ["Not all of these", "onnx: ", "--target tflite"]),
    ],
)
def test_what_has_no_meaning_is_refused_before_anything_is_made(deploykit, here, arguments, words):
    result = deploykit("export", "sinet", "--checkpoint", "missing.pt", *arguments)
    assert result.code == 2
    for word in words:
        assert word in result.err
    assert list(here.iterdir()) == []
