"""PReLU whose slopes are all equal becomes a leaky ReLU.

Algebra: both are x where x > 0 and ``a·x`` elsewhere. ONNX Runtime computes a leaky ReLU, as it does ReLU, Clip,
Sigmoid, Tanh, HardSigmoid and HardSwish, as a part of the convolution before it; PRelu it does not.
"""

from __future__ import annotations

from deploykit.graph.graph import Graph, Recorder, aten, calls, constant, erase_unread, module_path, stamp

NAME = "prelu_as_leaky_relu"

COMPUTED = "the slopes are computed, not stored"
DIFFERENT = "the slopes differ"


def prelu_as_leaky_relu(graph: Graph) -> Graph:
    """Return ``graph`` with every PReLU of one slope, stored once or for each channel, written as a leaky ReLU."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.prelu.default):
        slopes = constant(graph.module, node.args[1])
        # Slopes that are no numbers equal nothing, themselves included.
        if slopes is None or not bool((slopes == slopes.flatten()[0]).all()):
            record.skipped(module_path(node), COMPUTED if slopes is None else DIFFERENT)
            continue
        with graph.module.graph.inserting_before(node):
            leaky = graph.module.graph.call_function(
                aten.leaky_relu.default, (node.args[0], float(slopes.flatten()[0]))
            )
        node.replace_all_uses_with(stamp(leaky, node))
        erase_unread(graph.module, node)
        record.fired([module_path(node)], "one slope for all channels")
    return record.finish(graph)
