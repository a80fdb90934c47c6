"""Hard sigmoid and h-swish become a clamp of the line that they follow.

Algebra: ``hardsigmoid(x) = clamp(x / 6 + 1/2, 0, 1)``, and ``hardswish(x) = x · hardsigmoid(x)``. ONNX Runtime on a CPU
computes the HardSigmoid and HardSwish of half precision one value at a time, and Clip, Mul and Add as fast as float32.
"""

from __future__ import annotations

from typing import Any

from deploykit.graph.graph import Graph, Recorder, aten, calls, module_path, sources, stamp, stand_for

NAME = "hard_activations_by_clamp"


def hard_activations_by_clamp(graph: Graph) -> Graph:
    """Return ``graph`` with every hard sigmoid and h-swish written as a product, a sum and a clamp."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.hardsigmoid.default, aten.hardswish.default):
        x: Any = node.args[0]
        with graph.module.graph.inserting_before(node):
            sloped = graph.module.graph.call_function(aten.mul.Tensor, (x, 1 / 6))
            raised = graph.module.graph.call_function(aten.add.Tensor, (sloped, 0.5))
            parts = [sloped, raised, graph.module.graph.call_function(aten.clamp.default, (raised, 0, 1))]
            if node.target is aten.hardswish.default:
                parts.append(graph.module.graph.call_function(aten.mul.Tensor, (x, parts[-1])))
        for part in parts[:-1]:
            stand_for(stamp(part, node), None, sources(node))
        node.replace_all_uses_with(stamp(parts[-1], node))
        record.fired([module_path(node)], "clamp(x / 6 + 1/2, 0, 1)")
    return record.finish(graph)
