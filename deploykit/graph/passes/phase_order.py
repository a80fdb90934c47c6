"""Pixel shuffles as steps of reshapes and transposes, and the order of the channels that makes them cheap.

Channel ``c·s² + r·s + q`` of a shuffle's input goes to channel c at (s·i + r, s·j + q). Where the channels of a phase
(r, q) lie together instead, at ``(r·s + q)·C + c``, whole images and whole pixels move, not single values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.channels import channels_of
from deploykit.graph.graph import add_weight, aten, is_call, shape_of, sources, stamp, stand_for, weight_path
from deploykit.graph.layers import CONVOLUTIONS, groups_of, layer_weights, replace_weights

RANK = 4
NOT_AN_IMAGE = "its value is not a static image (N, C, H, W)"
OTHER_ORDER = "its channels do not come from a convolution that it alone reads, and that could give them in order"

# An operation, its operands beside its input, and the shape of its result.
Step = tuple[Any, Sequence[Any], tuple[int, ...]]


def factor_of(node: fx.Node) -> int | None:
    """Return the factor of the pixel shuffle ``node``, or None where it is not of a static image."""
    shape, target = shape_of(node.args[0]), shape_of(node)
    return None if shape is None or target is None or len(shape) != RANK else target[2] // shape[2]


def phases_first(module: fx.GraphModule, node: fx.Node, step: int) -> fx.Node | None:
    """Return the shuffled value with the channels of each phase together, or None where its convolution cannot."""
    layer = node.args[0]
    if not isinstance(layer, fx.Node) or not is_call(layer, *CONVOLUTIONS) or set(layer.users) != {node}:
        return None
    read, inputs, phases = layer_weights(module, layer), channels_of(layer.args[0]), step * step
    if read is None or inputs is None:
        return None
    weight, bias = read
    if groups_of(layer) == 1:
        moved = (weight, bias) if weight.shape[0] == phases else (_moved(weight, phases), _moved(bias, phases))
        replace_weights(module, layer, *moved)
        stand_for(layer, None, sources(layer))
        return layer
    if groups_of(layer) != inputs or weight.shape[0] != inputs * phases:
        return None
    return _one_per_phase(module, node, layer, phases)


def _moved(weight: Any, phases: int) -> Any:
    """Return ``weight`` (C · phases, …) with the channels of a phase together."""
    if weight is None:
        return None
    return weight.unflatten(0, (-1, phases)).transpose(0, 1).flatten(0, 1).contiguous()


def _one_per_phase(module: fx.GraphModule, node: fx.Node, layer: Any, phases: int) -> fx.Node:
    read, value = layer_weights(module, layer), layer.meta["val"]
    assert read is not None
    weight, bias = read
    parts = []
    for phase in range(phases):
        stored = add_weight(module, weight_path(layer, "phase"), weight[phase::phases].contiguous(), node)
        bias_node = None
        if bias is not None:
            bias_node = add_weight(module, weight_path(layer, "phase_bias"), bias[phase::phases], node)
        with module.graph.inserting_before(node):
            part = module.graph.call_function(layer.target, (layer.args[0], stored, bias_node, *layer.args[3:]))
        part.kwargs = {key: one for key, one in layer.kwargs.items() if key not in {"weight", "bias"}}
        part.meta["val"] = value.new_empty((value.shape[0], value.shape[1] // phases, *value.shape[2:]))
        parts.append(part)
    with module.graph.inserting_before(node):
        joined = module.graph.call_function(aten.cat.default, (parts, 1))
    joined.meta["val"] = value
    for part in (*parts, joined):
        stamp(part, layer, ("nn_module_stack", "stack_trace", "deploykit_module"))
        stand_for(part, None, sources(layer))
    return joined


def append(module: fx.GraphModule, node: fx.Node, x: Any, steps: Sequence[Step]) -> fx.Node:
    """Return the last of ``steps`` on ``x``, inserted before ``node``, which it stands for."""
    value: Tensor = node.meta["val"]
    with module.graph.inserting_before(node):
        for place, (operation, operands, sides) in enumerate(steps):
            x = stamp(module.graph.call_function(operation, (x, *operands)), node)
            x.meta["val"] = torch.empty(sides, dtype=value.dtype, device="meta")
            if place < len(steps) - 1:
                stand_for(x, None, sources(node))
    result: fx.Node = x
    return result
