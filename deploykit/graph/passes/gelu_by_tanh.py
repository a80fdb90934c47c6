"""GELU by its approximation becomes the formula of that approximation.

Algebra: ``gelu(x, "tanh") = x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))`` (D. Hendrycks and K. Gimpel, Gaussian
Error Linear Units, arXiv:1606.08415, section 2). Core ML's converter does not read the option and writes the exact
GELU, which differs by up to 5e-4.
"""

from __future__ import annotations

import math
from typing import Any

from deploykit.graph.graph import Graph, Recorder, aten, calls, module_path, stamp

NAME = "gelu_by_tanh"


def gelu_by_tanh(graph: Graph) -> Graph:
    """Return ``graph`` with every GELU that is approximated by tanh written out."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.gelu.default):
        if node.kwargs.get("approximate", "none") != "tanh":
            continue
        x = node.args[0]

        def call(operation: Any, *operands: Any, like: Any = node) -> Any:
            return stamp(graph.module.graph.call_function(operation, operands), like)

        with graph.module.graph.inserting_before(node):
            cube = call(aten.mul.Tensor, call(aten.mul.Tensor, x, x), x)
            inner = call(aten.add.Tensor, x, call(aten.mul.Tensor, cube, 0.044715))
            tanh = call(aten.tanh.default, call(aten.mul.Tensor, inner, math.sqrt(2 / math.pi)))
            half = call(aten.mul.Tensor, x, 0.5)
            result = call(aten.mul.Tensor, half, call(aten.add.Tensor, tanh, 1.0))
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], "the formula of the approximation")
    return record.finish(graph)
