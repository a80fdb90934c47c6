"""Convolutions, transposed convolutions and linear layers as the passes read and rewrite them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, fx

from deploykit.graph.channels import channels_of
from deploykit.graph.graph import add_weight, argument, aten, constant, erase_unread, is_call, shape_of, weight_path

CONVOLUTIONS = (aten.conv2d.default, aten.conv2d.padding)
TRANSPOSED = (aten.conv_transpose2d.input,)


def groups_of(node: fx.Node) -> int:
    """Return the groups of a convolution or a transposed one."""
    position = 8 if is_call(node, aten.convolution.default) else 6
    groups = argument(node, position, "groups", 1)
    assert isinstance(groups, int)
    return groups


def layer_weights(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor | None] | None:
    """Return weight and bias of a convolution, transposed convolution or linear layer; None where one is computed."""
    weight = constant(module, argument(node, 1, "weight"))
    bias_node = argument(node, 2, "bias")
    bias = constant(module, bias_node)
    if weight is None or (bias is None and bias_node is not None):
        return None
    return weight, bias


def is_depthwise(node: fx.Node) -> bool:
    """Whether the convolution ``node`` computes each output channel from the one input channel of its number."""
    return is_call(node, *CONVOLUTIONS) and groups_of(node) == channels_of(node.args[0]) == channels_of(node)


def pads(node: fx.Node) -> bool:
    """Whether the convolution ``node`` puts zeros around its input."""
    padding = argument(node, 4, "padding", 0)
    if padding == "valid":
        return False
    if padding == "same":
        weight = shape_of(argument(node, 1, "weight"))
        return weight is None or any(size > 1 for size in weight[2:])
    return any(width != 0 for width in (padding if isinstance(padding, Sequence) else [padding]))


def replace_weights(module: fx.GraphModule, layer: fx.Node, weight: Tensor, bias: Tensor | None) -> None:
    """Give ``layer`` (convolution, transposed or linear) another constant ``weight`` and ``bias``."""
    old = (argument(layer, 1, "weight"), argument(layer, 2, "bias"))
    others = {key: value for key, value in layer.kwargs.items() if key not in {"weight", "bias", "input"}}
    given = layer.args[0] if layer.args else layer.kwargs["input"]
    rest = layer.args[3:]
    layer.args, layer.kwargs = (given,), others
    erase_unread(module, *old)
    weight_node = add_weight(module, weight_path(layer, "weight"), weight, layer)
    bias_node = None if bias is None else add_weight(module, weight_path(layer, "bias"), bias, layer)
    layer.args = (given, weight_node, bias_node, *rest)


def replace_constant(module: fx.GraphModule, reader: fx.Node, position: int, tensor: Tensor) -> None:
    """Give ``reader`` another constant ``tensor`` in place of the weight at ``position`` of its arguments."""
    old = reader.args[position]
    assert isinstance(old, fx.Node)
    path = str(old.target)
    reader.update_arg(position, None)
    erase_unread(module, old)
    reader.update_arg(position, add_weight(module, path, tensor, reader))
