"""What does not depend on the input is computed once: sampling grids, ranges, factors made of weights.

Algebra: a pure operation of constants is a constant. Stored is what another operation reads of it, unless that is
larger than ``LARGEST`` values and than all that it is made of.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    aten,
    constant,
    erase_unread,
    is_call,
    is_pure,
    module_path,
    weight_path,
    with_rewrite,
)

NAME = "fold_constants"

LARGEST = 1 << 20
TOO_LARGE = "it would be stored as {values} values, made of {source}"

# What they return is not defined by their arguments.
_UNDEFINED = (
    aten.empty.memory_format, aten.empty_like.default, aten.new_empty.default, aten.empty_strided.default,
    aten.empty_permuted.default, aten.new_empty_strided.default,
)  # fmt: skip


def fold_constants(graph: Graph) -> Graph:
    """Return ``graph`` with everything computed that depends on constants alone."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Compute the constants of ``module`` in place; note each that is stored, and those too large for that."""
    values = _values(module)
    for node, (value, source) in values.items():
        is_read = any(user not in values for user in node.users)
        if node.op != "call_function" or not is_read or not isinstance(value, Tensor):
            continue
        if value.numel() > max(LARGEST, source):
            recorder.skipped(module_path(node), TOO_LARGE.format(values=value.numel(), source=source))
            continue
        recorder.fired((module_path(node),), f"{node.target}: {value.numel()} values computed once")
        node.replace_all_uses_with(add_weight(module, weight_path(node, "constant"), value.contiguous(), node))
        erase_unread(module, node)


def _values(module: fx.GraphModule) -> dict[fx.Node, tuple[object, int]]:
    """Return node → its value and the number of stored values that it is made of, for all that no input decides."""
    values: dict[fx.Node, tuple[object, int]] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            weight = constant(module, node)
            if weight is not None:
                values[node] = (weight, weight.numel())
        elif _is_defined(node) and all(source in values for source in node.all_input_nodes):
            value = _called(node, {source: values[source][0] for source in node.all_input_nodes})
            values[node] = (value, sum(values[source][1] for source in node.all_input_nodes))
    return values


def _called(node: fx.Node, given: Mapping[fx.Node, Any]) -> object:
    """Return what ``node`` computes of the values ``given`` of those that it reads."""
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), given.__getitem__)
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _is_defined(node: fx.Node) -> bool:
    return node.target is operator.getitem or (is_pure(node) and not is_call(node, *_UNDEFINED))
