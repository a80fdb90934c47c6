"""Independent references for the interpreter's tests: numpy, scipy and ONNX's reference evaluator, never PyTorch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from scipy import ndimage

# The sampling modes of resize_bilinear, resize and crop_resize.
MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def onnx(name: str, *inputs: np.ndarray, outputs: int = 1, **attributes: Any) -> Any:
    """What ONNX's reference evaluator makes of one node; an input of no elements counts as left out."""
    names = [f"x{number}" if array.size else "" for number, array in enumerate(inputs)]
    results = [f"y{number}" for number in range(outputs)]
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    given = {name: array for name, array in zip(names, inputs, strict=True) if name}
    graph = helper.make_graph(
        [helper.make_node(name, names, results, **attributes)],
        "one",
        [helper.make_tensor_value_info(name, kinds[str(array.dtype)], array.shape) for name, array in given.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
    )
    found = ReferenceEvaluator(helper.make_model(graph)).run(None, given)
    return np.asarray(found[0]) if outputs == 1 else [np.asarray(array) for array in found]


def onnx_resized(x: np.ndarray, sizes: Sequence[int], **attributes: Any) -> np.ndarray:
    """The last axes of ``x`` resized to ``sizes`` by ONNX's Resize."""
    shape = np.array([*x.shape[: x.ndim - len(sizes)], *sizes], np.int64)
    none = np.zeros(0, np.float32)
    return np.asarray(onnx("Resize", x, none, none, shape, **attributes))


def positions(mode: str, size: float, target: int) -> np.ndarray:
    """Where the samples lie, written from the documented formulas one sample at a time."""
    found = []
    for i in range(target):
        if mode == "DEFAULT":
            point = i * (size - size / target) / (target - 1) if target > 1 else 0.0
        elif mode == "OFFSET_CORNERS":
            point = 0.5 * max(1, size - 1) / target + i * max(1, size - 1) / target
        elif mode == "UNALIGN_CORNERS":
            point = i * size / target + 0.5 * size / target - 0.5
        elif target == 1:
            point = (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        else:
            point = i * (size - 1) / (target - 1)
        found.append(min(size - 1, max(0.0, point)))
    return np.array(found)


def read_at(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, **how: Any) -> np.ndarray:
    """Each plane of ``x`` (N, C, H, W) read on the grid of ``rows`` and ``columns``, linearly unless told otherwise."""
    grid = np.meshgrid(rows, columns, indexing="ij")
    options = {"order": 1, "mode": "nearest"} | how
    planes = x.astype(np.float64)
    return np.stack([[ndimage.map_coordinates(plane, grid, **options) for plane in image] for image in planes])


def interpolated(x: np.ndarray, mode: str, height: int, width: int) -> np.ndarray:
    """``x`` resized linearly in a sampling mode."""
    return read_at(x, positions(mode, x.shape[2], height), positions(mode, x.shape[3], width))


def ramp(height: int, width: int) -> np.ndarray:
    """An image whose value at (row, column) is 10 row + column: it tells where a sample was taken."""
    rows, columns = np.meshgrid(np.arange(float(height)), np.arange(float(width)), indexing="ij")
    return (10 * rows + columns).astype(np.float32)[None, None]


def same(
    sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], lower: bool = False
) -> list[tuple[int, int]]:
    """The padding after which the output has ceil(size / stride) elements."""
    pads = []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        small, large = total // 2, math.ceil(total / 2)
        pads.append((large, small) if lower else (small, large))
    return pads
