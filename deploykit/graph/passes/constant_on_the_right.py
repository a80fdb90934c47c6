"""A constant minus or over a tensor becomes a sum or product of the tensor and the constant.

Algebra: ``c - a·x = (-a·x) + c`` and ``c / x = x⁻¹ · c``. TFLite's converter moves a change of layout from behind
such an operation to its front and swaps the operands on the way, as if it commuted: ``1 - conv(x)`` comes out as
``conv(x) - 1``.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from deploykit.graph.graph import Graph, Recorder, aten, calls, constant, module_path, stamp

NAME = "constant_on_the_right"


def constant_on_the_right(graph: Graph) -> Graph:
    """Return ``graph`` with every subtraction from a constant and division of one written in the other order."""
    graph = graph.copy()
    record = Recorder(NAME)
    fx_graph = graph.module.graph
    node: Any
    for node in calls(fx_graph, aten.rsub.Scalar, aten.sub.Tensor, aten.reciprocal.default, aten.div.Tensor):
        with fx_graph.inserting_before(node):
            result = _rewritten(graph.module, node)
        if result is not None:
            node.replace_all_uses_with(stamp(result, node))
            record.fired([module_path(node)], f"{node.target} as {result.target}")
    return record.finish(graph)


def _rewritten(module: fx.GraphModule, node: Any) -> fx.Node | None:
    """Return what stands for ``node``, or None where its left operand is no constant."""
    if node.target is aten.rsub.Scalar:
        x, fixed, *alpha = node.args
        return _call(module, aten.add.Tensor, _opposite(module, x, alpha[0] if alpha else 1), fixed)
    if node.target is aten.reciprocal.default:
        return _inverse(module, node.args[0])
    fixed, x = node.args
    if constant(module, fixed) is None or not isinstance(x, fx.Node):
        return None
    if node.target is aten.sub.Tensor:
        return _call(module, aten.add.Tensor, _opposite(module, x, node.kwargs.get("alpha", 1)), fixed)
    return _call(module, aten.mul.Tensor, _inverse(module, x), fixed)


def _opposite(module: fx.GraphModule, x: fx.Node, alpha: Any) -> fx.Node:
    if alpha == 1:
        return stamp(_call(module, aten.neg.default, x), x)
    return stamp(_call(module, aten.mul.Tensor, x, -alpha), x)


def _inverse(module: fx.GraphModule, x: fx.Node) -> fx.Node:
    return stamp(_call(module, aten.pow.Tensor_Scalar, x, -1.0), x)


def _call(module: fx.GraphModule, operation: Any, *operands: Any) -> fx.Node:
    return module.graph.call_function(operation, operands)
