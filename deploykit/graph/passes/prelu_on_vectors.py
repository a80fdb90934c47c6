"""PReLU on a (batch, channels) tensor becomes ``relu(x) - a·relu(-x)``.

Algebra: ``prelu(x, a) = max(x, 0) + a·min(x, 0)`` and ``min(x, 0) = -max(-x, 0)``. Core ML's ``prelu`` takes a
slope per channel only for tensors with spatial axes.
"""

from __future__ import annotations

from deploykit.graph.graph import Graph, Recorder, aten, calls, module_path, shape_of, stamp

NAME = "prelu_on_vectors"


def prelu_on_vectors(graph: Graph) -> Graph:
    """Return ``graph`` with every PReLU on a tensor of rank 2 written out."""
    graph = graph.copy()
    record = Recorder(NAME)
    fx_graph = graph.module.graph
    for node in calls(fx_graph, aten.prelu.default):
        shape = shape_of(node)
        if shape is None or len(shape) != 2:
            continue
        x, slope = node.args
        with fx_graph.inserting_before(node):
            positive = fx_graph.call_function(aten.relu.default, (x,))
            negated = fx_graph.call_function(aten.neg.default, (x,))
            negative = fx_graph.call_function(aten.relu.default, (negated,))
            scaled = fx_graph.call_function(aten.mul.Tensor, (negative, slope))
            result = fx_graph.call_function(aten.sub.Tensor, (positive, scaled))
        for part in (positive, negated, negative, scaled, result):
            stamp(part, node)
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], "relu(x) - a·relu(-x)")
    return record.finish(graph)
