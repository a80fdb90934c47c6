"""Two convolutions in a row, one of them 1x1, become one where that does not cost more multiply-accumulates.

Algebra: both are linear, so that ``conv(conv(x, V, a), W, b) = conv(x, W ∘ V, W a + b)``. With the 1x1 kernel second
this always holds; with it first, only where the second does not pad or a is zero, since padding is zero where the
first would have given a. One of them may be transposed, the other being 1x1 with stride 1: the 1x1 mixes channels,
the other moves values, and each output of a transposed convolution has as many taps as land there, so that a has to
be zero where the transposed one comes second.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import Kernel, compose, swap_channel_axes
from deploykit.graph.channels import positions_of
from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    erase_unread,
    is_call,
    module_path,
    pair,
    shape_of,
    sources,
    stand_for,
    with_rewrite,
)
from deploykit.graph.layers import CONVOLUTIONS, TRANSPOSED, groups_of, layer_weights, pads, replace_weights

NAME = "compose_convolutions"

BORDER = "the second pads with zeros where the first would give its bias"
MORE_WORK = "one convolution would take {one} multiply-accumulates instead of {two}"
OTHER_READER = "the value between them has another reader"
UNEVEN = "a transposed convolution takes the bias of the first differently from place to place"


def compose_convolutions(graph: Graph) -> Graph:
    """Return ``graph`` with pairs of convolutions composed wherever that is exact and costs no more."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Compose the pairs of ``module`` in place; note each pair, and why the others stay."""
    for second in list(module.graph.nodes):
        first = second.args[0] if second.op == "call_function" and second.args else None
        if second._erased or not isinstance(first, fx.Node) or not _is_pair(first, second):
            continue
        one, other = _kernel(module, first), _kernel(module, second)
        if one is None or other is None or not _can_compose(first, second, one, other):
            continue
        reason = _against(first, second, one, other)
        if reason is not None:
            recorder.skipped(module_path(second), reason)
            continue
        made_from = tuple(dict.fromkeys((*sources(first), *sources(second))))
        recorder.fired(made_from, "two convolutions in a row became one")
        if is_call(second, *TRANSPOSED):
            second.replace_input_with(first, first.args[0])
            erase_unread(module, first)
            _reweight(module, second, compose(one, other))
            stand_for(second, second, made_from)
            continue
        if is_call(first, *TRANSPOSED):
            _reweight(module, first, compose(one, other))
        else:
            _join(module, first, second, compose(one, other))
        first.meta["val"] = second.meta["val"]
        stand_for(first, second, made_from)
        second.replace_all_uses_with(first)
        erase_unread(module, second)


def _is_pair(first: fx.Node, second: fx.Node) -> bool:
    """Whether both are convolutions, at most one of them transposed."""
    transposed = [is_call(node, *TRANSPOSED) for node in (first, second)]
    plain = [is_call(node, *CONVOLUTIONS) for node in (first, second)]
    return all(a or b for a, b in zip(plain, transposed, strict=True)) and not all(transposed)


def _can_compose(first: fx.Node, second: fx.Node, one: Kernel, other: Kernel) -> bool:
    """Whether one of them is 1x1; beside a transposed convolution, the other one without a stride or padding."""
    for node, kernel, neighbour in ((first, one, second), (second, other, first)):
        if is_call(neighbour, *TRANSPOSED):
            return kernel.is_pointwise and _pair(node, 3, 1) == [1, 1] and not pads(node)
    return one.is_pointwise or other.is_pointwise


def _kernel(module: fx.GraphModule, node: fx.Node) -> Kernel | None:
    read = layer_weights(module, node)
    if read is None or not isinstance(argument(node, 4, "padding", [0, 0]), (list, tuple)):
        return None
    weight, bias = read
    if is_call(node, *TRANSPOSED):
        weight = swap_channel_axes(weight, groups_of(node))
    return Kernel(weight, torch.zeros(weight.shape[0], dtype=weight.dtype) if bias is None else bias, groups_of(node))


def _against(first: fx.Node, second: fx.Node, one: Kernel, other: Kernel) -> str | None:
    """Return what keeps the pair from becoming one convolution, or None."""
    if len(first.users) > 1:
        return OTHER_READER
    if is_call(second, *TRANSPOSED):
        if bool(one.bias.any()):
            return UNEVEN
    elif pads(second) and (not one.is_pointwise or bool(one.bias.any())):
        return BORDER
    now = _macs(first, one.weight) + _macs(second, other.weight)
    groups = math.gcd(one.groups, other.groups)
    if other.is_pointwise and other.is_depthwise:
        groups = one.groups
    elif one.is_pointwise and one.is_depthwise:
        groups = other.groups
    shape = shape_of(first.args[0])
    assert shape is not None
    taps = max(one.weight.shape[2] * one.weight.shape[3], other.weight.shape[2] * other.weight.shape[3])
    # A transposed convolution multiplies once for each of its inputs, the others once for each output.
    places = (
        shape[2] * shape[3] if any(is_call(node, *TRANSPOSED) for node in (first, second)) else positions_of(second)
    )
    joined = places * other.weight.shape[0] * shape[1] // groups * taps
    return MORE_WORK.format(one=joined, two=now) if joined > now else None


def _macs(node: fx.Node, weight: Tensor) -> int:
    return weight.numel() * positions_of(node.args[0] if is_call(node, *TRANSPOSED) else node)


def _join(module: fx.GraphModule, first: fx.Node, second: fx.Node, kernel: Kernel) -> None:
    """Turn ``first`` into the composed convolution: strides multiply, the larger kernel keeps its geometry."""
    stride = [a * b for a, b in zip(_pair(first, 3, 1), _pair(second, 3, 1), strict=True)]
    pointwise_first = shape_of(argument(first, 1, "weight"))[2:] == (1, 1)  # type: ignore[index]
    spread = [a * b for a, b in zip(_pair(first, 3, 1), _pair(second, 5, 1), strict=True)]
    padding = [a * b for a, b in zip(_pair(first, 3, 1), _pair(second, 4, 0), strict=True)]
    if pointwise_first:
        padding = [a + b for a, b in zip(_pair(first, 4, 0), padding, strict=True)]
    else:
        padding, spread = _pair(first, 4, 0), _pair(first, 5, 1)
    layer = (first.args[0], argument(first, 1, "weight"), argument(first, 2, "bias"))
    first.args = (*layer, stride, padding, spread, kernel.groups)  # type: ignore[assignment]
    bias = kernel.bias if bool(kernel.bias.any()) else None
    replace_weights(module, first, kernel.weight, bias)


def _reweight(module: fx.GraphModule, node: fx.Node, kernel: Kernel) -> None:
    """Give the transposed convolution ``node`` the weights of ``kernel``; its geometry stays."""
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "groups"}
    if len(node.args) > 6:
        node.args = (*node.args[:6], kernel.groups, *node.args[7:])
    elif kernel.groups != 1:
        node.kwargs = {**node.kwargs, "groups": kernel.groups}
    weight = swap_channel_axes(kernel.weight, kernel.groups)
    replace_weights(module, node, weight, kernel.bias if bool(kernel.bias.any()) else None)


def _pair(node: fx.Node, position: int, default: int) -> list[int]:
    names = ("input", "weight", "bias", "stride", "padding", "dilation")
    return list(pair(argument(node, position, names[position], default)))
