"""Read one node as a linear operation on one tensor: convolution, pooling, scaling per channel, padding."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import Kernel, average_pool_kernel
from deploykit.graph.graph import argument, aten, computed_constant, is_call, pair, shape_of
from deploykit.graph.layers import layer_weights
from deploykit.graph.passes.border_frame import read_frame
from deploykit.graph.passes.fold_batch_norm import batch_norm_stats

COMPUTED_WEIGHT = "the weight of a convolution is computed, not constant"
UNEVEN_POOLING = "average pooling divides by fewer elements at its border than inside"

Pair: TypeAlias = tuple[int, int]

_SCALINGS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
_SHIFTS = (aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar)
_CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding, aten.convolution.default)


@dataclass(frozen=True)
class Window:
    """A convolution: ``offset`` is its padding at the top and left. Pooling is one that is ``not is_convolution``."""

    kernel: Kernel
    stride: Pair
    offset: Pair
    dilation: Pair
    pads: bool
    is_convolution: bool


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift`` per channel, each (C,); ``macs_per_value`` is 0 where it only adds."""

    scale: Tensor
    shift: Tensor
    macs_per_value: int


@dataclass(frozen=True)
class Border:
    """A border of ``value`` (C,) around a tensor, ``offset`` wide at the top and left."""

    offset: Pair
    value: Tensor


@dataclass(frozen=True)
class Step:
    """``node`` applies ``operation`` to ``source``; a string says why a linear operation cannot be written as one."""

    node: fx.Node
    source: fx.Node
    operation: Window | Affine | Border | str


def read_step(module: fx.GraphModule, node: fx.Node) -> Step | None:
    """Return ``node`` as a linear operation on one tensor (N, C, H, W), or None where it is none."""
    shape = shape_of(node)
    if node.op != "call_function" or shape is None or len(shape) != 4:
        return None
    frame = read_frame(module, node)
    if frame is not None:
        return Step(node, frame.source, Border(frame.before, frame.value))
    source, number = _operands(module, node)
    if source is None or len(shape_of(source) or ()) != 4:
        return None
    operation: Window | Affine | str | None = None
    if is_call(node, *_CONVOLUTIONS):
        operation = _convolution(module, node)
    elif is_call(node, aten.avg_pool2d.default):
        operation = _pooling(node, source)
    elif is_call(node, aten.batch_norm.default):
        stats = batch_norm_stats(module, node)
        operation = stats if isinstance(stats, str) else Affine(*stats.affine(), 1)
    elif shape_of(source) == shape:
        operation = _pointwise(module, node, number, shape[1])
    return None if operation is None else Step(node, source, operation)


def _operands(module: fx.GraphModule, node: fx.Node) -> tuple[fx.Node | None, object]:
    """Return the tensor that ``node`` transforms and its other operand, whichever comes first."""
    first: object = node.args[0] if node.args else None
    second = argument(node, 1, "other")
    if is_call(node, aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor) and _is_constant(module, first):
        first, second = second, first
    return (first if isinstance(first, fx.Node) else None), second


def _is_constant(module: fx.GraphModule, value: object) -> bool:
    return not isinstance(value, fx.Node) or computed_constant(module, value) is not None


def _convolution(module: fx.GraphModule, node: fx.Node) -> Window | str | None:
    general = is_call(node, aten.convolution.default)
    if general and argument(node, 6, "transposed"):
        return None
    read = layer_weights(module, node)
    if read is None:
        return COMPUTED_WEIGHT
    weight, bias = read
    if weight.dim() != 4:
        return None
    groups = argument(node, 8 if general else 6, "groups", 1)
    stride, dilation = pair(argument(node, 3, "stride", 1)), pair(argument(node, 5, "dilation", 1))
    padding = argument(node, 4, "padding", 0)
    assert isinstance(groups, int)
    reach = tuple(step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True))
    if padding == "same":
        offset, pads = (reach[0] // 2, reach[1] // 2), any(reach)
    else:
        offset = (0, 0) if padding == "valid" else pair(padding)
        pads = any(offset)
    kernel = Kernel(weight, weight.new_zeros(weight.shape[0]) if bias is None else bias, groups)
    return Window(kernel, stride, offset, dilation, pads, is_convolution=True)


def _pooling(node: fx.Node, source: fx.Node) -> Window | str:
    size = pair(argument(node, 1, "kernel_size"))
    stride = pair(argument(node, 2, "stride") or size)
    offset = pair(argument(node, 3, "padding", 0))
    rounds_up, counts_padding = argument(node, 4, "ceil_mode", False), argument(node, 5, "count_include_pad", True)
    divisor = argument(node, 6, "divisor_override")
    before, after = shape_of(source), shape_of(node)
    assert before is not None
    assert after is not None
    fits = all((after[2 + i] - 1) * stride[i] + size[i] <= before[2 + i] + 2 * offset[i] for i in range(2))
    if rounds_up and not fits:
        return UNEVEN_POOLING
    if any(offset) and not counts_padding and divisor is None:
        return UNEVEN_POOLING
    channels = before[1]
    weight = average_pool_kernel(channels, *size, divisor if isinstance(divisor, int) else None)
    kernel = Kernel(weight, weight.new_zeros(channels), channels)
    return Window(kernel, stride, offset, (1, 1), any(offset), is_convolution=False)


def _pointwise(module: fx.GraphModule, node: fx.Node, number: object, channels: int) -> Affine | None:
    """Return ``node`` as an affine map per channel where its other operand is a constant."""
    one = torch.ones(channels, dtype=torch.float64)
    if is_call(node, aten.neg.default):
        return Affine(-one, 0 * one, 1)
    if not is_call(node, *_SCALINGS, *_SHIFTS) or node.kwargs.get("rounding_mode"):
        return None
    value = _per_channel(module, number, channels)
    if value is None:
        return None
    if is_call(node, *_SCALINGS):
        divides = is_call(node, aten.div.Tensor, aten.div.Scalar)
        return Affine(operator.truediv(one, value) if divides else value, 0 * one, 1)
    alpha = _alpha(node)
    if alpha is None:
        return None
    if is_call(node, aten.add.Tensor, aten.add.Scalar):
        constant_first = node.args[0] is number
        return Affine(alpha * one if constant_first else one, value if constant_first else alpha * value, 0)
    if is_call(node, aten.rsub.Scalar):
        return Affine(-alpha * one, value, 1)
    if node.args[0] is number:
        return Affine(-alpha * one, value, 1)
    return Affine(one, -alpha * value, 0)


def _alpha(node: fx.Node) -> float | None:
    alpha = argument(node, 2, "alpha", 1)
    return float(alpha) if isinstance(alpha, (int, float)) else None


def _per_channel(module: fx.GraphModule, number: object, channels: int) -> Tensor | None:
    """Return ``number`` as a tensor (channels,) where it is one, or a constant tensor of one value per channel."""
    if isinstance(number, (int, float)):
        return torch.full((channels,), float(number), dtype=torch.float64)
    tensor = computed_constant(module, number)
    if tensor is None or tensor.dim() > 4:
        return None
    full = (1,) * (4 - tensor.dim()) + tuple(tensor.shape)
    if (full[0], *full[2:]) != (1, 1, 1) or full[1] not in (1, channels):
        return None
    return tensor.reshape(-1).expand(channels)
