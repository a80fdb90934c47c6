"""ONNX's reference evaluator, with the operators that it would take minutes for written with PyTorch or matrices.

They are evaluated in float64 and rounded once to the declared type, and share no code with ONNX Runtime.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_conv, op_conv_transpose, op_dequantize_linear, op_grid_sample, op_resize
from torch import Tensor

_IMAGE_RANK = 4


class Conv(op_conv.Conv):  # type: ignore[misc]
    """Convolution over two axes with explicit padding; anything else as ONNX evaluates it."""

    def _run(self, X: Any, W: Any, B: Any = None, **attributes: Any) -> Any:  # noqa: N803
        if X.ndim != _IMAGE_RANK or attributes.get("auto_pad") not in (None, "NOTSET"):
            return super()._run(X, W, B, **attributes)
        x = _padded(_tensor(X), attributes.get("pads"), 0.0)
        strides, dilations = attributes.get("strides") or [1, 1], attributes.get("dilations") or [1, 1]
        bias = None if B is None else _tensor(B)
        found = F.conv2d(x, _tensor(W), bias, tuple(strides), 0, tuple(dilations), attributes.get("group") or 1)
        return (found.numpy().astype(X.dtype),)


class ConvTranspose(op_conv_transpose.ConvTranspose):  # type: ignore[misc]
    """Transposed convolution over two axes with symmetric padding; anything else as ONNX evaluates it."""

    def _run(self, X: Any, W: Any, B: Any = None, **attributes: Any) -> Any:  # noqa: N803
        pads = attributes.get("pads") or [0, 0, 0, 0]
        simple = pads[:2] == pads[2:] and attributes.get("auto_pad") in (None, "NOTSET")
        if X.ndim != _IMAGE_RANK or not simple or attributes.get("output_shape"):
            return super()._run(X, W, B, **attributes)
        found = F.conv_transpose2d(
            _tensor(X),
            _tensor(W),
            None if B is None else _tensor(B),
            tuple(attributes.get("strides") or [1, 1]),
            tuple(pads[:2]),
            tuple(attributes.get("output_padding") or [0, 0]),
            attributes.get("group") or 1,
            tuple(attributes.get("dilations") or [1, 1]),
        )
        return (found.numpy().astype(X.dtype),)


class GridSample(op_grid_sample.GridSample):  # type: ignore[misc]
    """Sampling of images at given places."""

    def _run(self, X: Any, grid: Any, mode: Any = None, padding_mode: Any = None, align_corners: Any = None) -> Any:  # noqa: N803
        kind = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode) or "bilinear"
        found = F.grid_sample(_tensor(X), _tensor(grid), kind, padding_mode or "zeros", bool(align_corners))
        return (found.numpy().astype(X.dtype),)


class Resize(op_resize.Resize):  # type: ignore[misc]
    """Linear and nearest resizing, one matrix of weights an axis; anything else as ONNX evaluates it."""

    def _run(self, X: Any, roi: Any, scales: Any = None, sizes: Any = None, **attributes: Any) -> Any:  # noqa: N803
        mode = attributes.get("mode") or "nearest"
        coordinates = attributes.get("coordinate_transformation_mode") or "half_pixel"
        nearest = attributes.get("nearest_mode") or "round_prefer_floor"
        known = mode in ("linear", "nearest") and coordinates in _COORDINATES and nearest in _NEAREST
        policy = attributes.get("keep_aspect_ratio_policy") or "stretch"
        if not known or attributes.get("antialias") or policy != "stretch":
            return super()._run(X, roi, scales, sizes, **attributes)
        axes = attributes.get("axes") or list(range(X.ndim))
        value = X.astype(np.float64)
        for place, axis in enumerate(axes):
            length = X.shape[axis]
            if sizes is not None:
                size, scale = int(sizes[place]), int(sizes[place]) / length
            else:
                size, scale = math.floor(length * float(scales[place])), float(scales[place])
            at = _COORDINATES[coordinates](np.arange(size), scale, size, length)
            weights = _linear(at, length) if mode == "linear" else _chosen(_NEAREST[nearest](at), length)
            if size != length or scale != 1:
                value = np.moveaxis(np.tensordot(weights, value, (1, axis)), 0, axis)
        return (value.astype(X.dtype),)


_COORDINATES = {
    "half_pixel": lambda x, scale, size, length: (x + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda x, scale, size, length: (x + 0.5) / scale - 0.5 if size > 1 else 0.0 * x,
    "align_corners": lambda x, scale, size, length: x * ((length - 1) / (size - 1)) if size > 1 else 0.0 * x,
    "asymmetric": lambda x, scale, size, length: x / scale,
}
_NEAREST: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def _linear(at: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """Return the weights (size, length) of linear interpolation at the places ``at``, the border values repeated."""
    low = np.floor(at)
    share = at - low
    before, after = (np.clip(low + step, 0, length - 1).astype(int) for step in (0, 1))
    weights = np.zeros((len(at), length))
    rows = np.arange(len(at))
    np.add.at(weights, (rows, before), 1 - share)
    np.add.at(weights, (rows, after), share)
    return weights


def _chosen(at: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    weights = np.zeros((len(at), length))
    weights[np.arange(len(at)), np.clip(at, 0, length - 1).astype(int)] = 1
    return weights


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array, np.float64))


def _padded(x: Tensor, pads: Sequence[int] | None, fill: float) -> Tensor:
    if not pads or not any(pads):
        return x
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=fill)


class DequantizeLinear(op_dequantize_linear.DequantizeLinear_19):  # type: ignore[misc]
    """The versions before opset 19, which ONNX's evaluator lacks: they differ from it in the types they take alone."""

    def _run(self, x: Any, x_scale: Any, x_zero_point: Any = None, axis: int = 1, **_later: Any) -> Any:
        return super()._run(x, x_scale, x_zero_point, axis)


_OPERATORS: tuple[type[OpRun], ...] = (Conv, ConvTranspose, GridSample, Resize)


def evaluate(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return every value of ``model`` by name."""
    version = next(item.version for item in model.opset_import if item.domain in ("", "ai.onnx"))
    older = [DequantizeLinear] if version < 19 else []
    evaluator = ReferenceEvaluator(model, new_ops=[*_OPERATORS, *older])
    with np.errstate(all="ignore"), torch.no_grad():
        found = evaluator.run(None, dict(inputs), intermediate=True)
    return {name: value for name, value in found.items() if name}
