"""Adaptive average pooling to one pixel becomes the mean over the two last axes.

Algebra: its one window is the whole image. PyTorch takes such a pooling apart by the strides of its input, and an
image whose channels lie together, as those that gathers make, ends in an ``as_strided``, which coreai-torch refuses.
"""

from __future__ import annotations

from deploykit.graph.graph import Graph, Recorder, argument, aten, calls, module_path, stamp

NAME = "global_average_pooling"


def global_average_pooling(graph: Graph) -> Graph:
    """Return ``graph`` with every adaptive average pooling to 1x1 written as a mean."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.adaptive_avg_pool2d.default):
        size = argument(node, 1, "output_size")
        if not isinstance(size, (list, tuple)) or tuple(size) != (1, 1):
            continue
        with graph.module.graph.inserting_before(node):
            mean = graph.module.graph.call_function(aten.mean.dim, (node.args[0], [-2, -1], True))
        node.replace_all_uses_with(stamp(mean, node))
        record.fired([module_path(node)], "mean over the image")
    return record.finish(graph)
