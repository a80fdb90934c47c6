"""Softmax over two classes becomes the sigmoid of their difference.

Algebra: ``softmax(x)[0] = 1 / (1 + exp(x1 - x0)) = sigmoid(x0 - x1)`` and ``softmax(x)[1] = sigmoid(x1 - x0)``, so that
``softmax(x) = sigmoid(x - flip(x))``; the larger of the two is ``sigmoid(|x0 - x1|)``, since the sigmoid rises. A
runtime's softmax over an axis that is not the last one moves the axis there and back, and takes an exponential, a
maximum, a sum and a quotient per value.
"""

from __future__ import annotations

import operator

import torch
from torch import fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    argument,
    aten,
    calls,
    erase_unread,
    is_call,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
    weight_path,
    with_rewrite,
)

NAME = "two_class_softmax"

RANK = 4
_CHANNELS = (1, 1 - RANK)

OTHER_AXIS = "it is not taken over the channels of an image"
OTHER_COUNT = "it has {count} classes"
NOT_STATIC = "the size is not static"
OTHER_DTYPE = "it changes the data type"


def two_class_softmax(graph: Graph) -> Graph:
    """Return ``graph`` with every softmax over the two channels of an image (N, 2, H, W) written as a sigmoid."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Rewrite the softmaxes of ``module`` in place; note each, and those that stay."""
    for node in calls(module.graph, aten.softmax.int, aten._softmax.default):
        reason = _why_not(node)
        if reason:
            recorder.skipped(module_path(node), reason)
            continue
        maxima = [_larger_of(user) for user in node.users]
        if maxima and all(maximum is not None for maximum in maxima):
            for maximum in maxima:
                assert maximum is not None
                _write_larger(module, node, maximum)
            recorder.fired([module_path(node)], "its maximum as a sigmoid of the absolute difference")
        else:
            _write_both(module, node)
            recorder.fired([module_path(node)], "sigmoid of the difference")
        erase_unread(module, node)


def _why_not(node: fx.Node) -> str:
    shape = shape_of(node)
    if shape is None:
        return NOT_STATIC
    if len(shape) != RANK or argument(node, 1, "dim") not in _CHANNELS:
        return OTHER_AXIS
    if shape[1] != 2:
        return OTHER_COUNT.format(count=shape[1])
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return "" if source.meta["val"].dtype == node.meta["val"].dtype else OTHER_DTYPE


def _larger_of(reader: fx.Node) -> fx.Node | None:
    """Return the node that is the maximum over the channels of the value that ``reader`` reads, or None."""
    if is_call(reader, aten.amax.default):
        axes = argument(reader, 1, "dim", ())
        return reader if isinstance(axes, (list, tuple)) and len(axes) == 1 and axes[0] in _CHANNELS else None
    if is_call(reader, aten.max.dim) and argument(reader, 1, "dim") in _CHANNELS and len(reader.users) == 1:
        (value,) = reader.users
        return value if is_call(value, operator.getitem) and value.args[1] == 0 else None
    return None


def _write_both(module: fx.GraphModule, node: fx.Node) -> None:
    x = node.args[0]
    with module.graph.inserting_before(node):
        other = module.graph.call_function(aten.flip.default, (x, [1]))
        difference = module.graph.call_function(aten.sub.Tensor, (x, other))
        result = module.graph.call_function(aten.sigmoid.default, (difference,))
    for part in (other, difference):
        stand_for(stamp(part, node), None, sources(node))
    node.replace_all_uses_with(stamp(result, node))


def _write_larger(module: fx.GraphModule, node: fx.Node, maximum: fx.Node) -> None:
    """Write ``maximum``, (N, 1, H, W) or (N, H, W), without the softmax ``node``."""
    value, shape = node.meta["val"], shape_of(maximum)
    assert shape is not None
    weight = torch.tensor([1.0, -1.0], dtype=value.dtype).reshape(1, 2, 1, 1)
    stored = add_weight(module, weight_path(node, "difference"), weight, node)
    with module.graph.inserting_before(maximum):
        parts = [module.graph.call_function(aten.conv2d.default, (node.args[0], stored))]
        for operation in (aten.abs.default, aten.sigmoid.default):
            parts.append(module.graph.call_function(operation, (parts[-1],)))
        if len(shape) < RANK:
            parts.append(module.graph.call_function(aten.squeeze.dim, (parts[-1], 1)))
    for part in parts:
        stand_for(stamp(part, node), None, sources(node))
        part.meta["val"] = value.new_empty((value.shape[0], 1, *value.shape[2:]))
    maximum.replace_all_uses_with(stamp(parts[-1], maximum))
    erase_unread(module, maximum)
