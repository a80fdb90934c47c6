"""A reciprocal becomes one divided by the tensor.

Algebra: ``reciprocal(x) = 1 / x``. Core ML's ``inverse`` adds an epsilon, 1e-4 where the converter sets none, and
computes ``1 / (x + 1e-4)``.
"""

from __future__ import annotations

from typing import Any

import torch

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, calls, module_path, stamp, weight_path

NAME = "reciprocal_as_division"


def reciprocal_as_division(graph: Graph) -> Graph:
    """Return ``graph`` without reciprocals."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.reciprocal.default):
        value = node.meta["val"]
        ones = torch.ones((1,) * value.dim(), dtype=value.dtype)
        one = add_weight(graph.module, weight_path(node, "one"), ones, node)
        with graph.module.graph.inserting_before(node):
            result = graph.module.graph.call_function(aten.div.Tensor, (one, node.args[0]))
        node.replace_all_uses_with(stamp(result, node))
        record.fired([module_path(node)], "1 / x")
    return record.finish(graph)
