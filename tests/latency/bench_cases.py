"""Small real files to measure: an ONNX model, and a recipe with a network of its own."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

RECIPE = """
format_version = 1
name = "tiny"
description = "one convolution"
license = "Apache-2.0"
source = "this test"

[network]
factory = "tiny_bench_network:tiny"

[[inputs]]
name = "image"
shape = [1, 3, 32, 32]
scale = [0.004]
source = "this test"

[[outputs]]
name = "logits"
meaning = "scores"
classes = ["background", "portrait"]

[checkpoint]
path = "tiny.pt"
"""

NETWORK = """
from torch import nn


def tiny():
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
"""


def write_onnx(path: Path, kind: int = TensorProto.FLOAT, operation: str = "Abs") -> Path:
    """Write a model of one operation on a 1x3x8x8 tensor of ``kind``."""
    x = helper.make_tensor_value_info("x", kind, [1, 3, 8, 8])
    y = helper.make_tensor_value_info("y", kind, [1, 3, 8, 8])
    graph = helper.make_graph([helper.make_node(operation, ["x"], ["y"])], "small", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def write_reshape(path: Path) -> Path:
    """Write a model that loads, and fails when it is run: its input says into how many parts 192 values go."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    parts = helper.make_tensor_value_info("parts", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["parts"])
    offset = helper.make_tensor("offset", TensorProto.INT64, [1], [7])
    nodes = [helper.make_node("Add", ["parts", "offset"], ["sum"]), helper.make_node("Reshape", ["x", "sum"], ["y"])]
    graph = helper.make_graph(nodes, "reshape", [x, parts], [y], [offset])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path
