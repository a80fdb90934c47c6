"""Adaptive average pooling to one pixel becomes the mean over the width, then over the height.

Algebra: its one window is the whole image, and every row has as many pixels. LiteRT and Core AI add up the whole image
one value after the other: on a flat picture all roundings go one way, and the scores of SINet are off by 1e-3. A mean
of means has as many terms as the sides are long. PyTorch takes such a pooling apart by the strides of its input, and an
image whose channels lie together, as those that gathers make, ends in an ``as_strided``, which coreai-torch refuses.
"""

from __future__ import annotations

from torch import fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    aten,
    calls,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
)

NAME = "global_average_pooling"


def global_average_pooling(graph: Graph) -> Graph:
    """Return ``graph`` with every adaptive average pooling to 1x1 written as two means."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.adaptive_avg_pool2d.default):
        size = argument(node, 1, "output_size")
        if not isinstance(size, (list, tuple)) or tuple(size) != (1, 1):
            continue
        source = node.args[0]
        shape = shape_of(source)
        if shape is None or not isinstance(source, fx.Node):
            record.skipped(module_path(node), "its size is not static")
            continue
        with graph.module.graph.inserting_before(node):
            rows = graph.module.graph.call_function(aten.mean.dim, (source, [-1], True))
            mean = graph.module.graph.call_function(aten.mean.dim, (rows, [-2], True))
        stamp(rows, node).meta["val"] = node.meta["val"].new_empty((*shape[:-1], 1))
        stand_for(rows, None, sources(node))
        node.replace_all_uses_with(stamp(mean, node))
        record.fired([module_path(node)], "mean over the width, then over the height")
    return record.finish(graph)
