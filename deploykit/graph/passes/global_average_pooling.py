"""Adaptive average pooling to one pixel becomes two means, or average pooling by one window.

Algebra: its one window is the whole image, and every row has as many pixels. In a mean over both axes LiteRT and
Core AI add up the whole image one value after the other: on a flat picture all roundings go one way, and the scores of
SINet are off by 1e-3. A mean over the width, then over the height, has as many terms as the sides are long. Core AI's
average pooling is one operation and rounds once: on a flat picture of 112x112 it is off by 7e-8, two means by 2e-6,
one mean by 1.5e-4. PyTorch takes an adaptive pooling apart by the strides of its input, and an image whose channels lie
together, as those that gathers make, ends in an ``as_strided``, which coreai-torch refuses.
"""

from __future__ import annotations

from torch import Tensor, fx

from deploykit.graph.channels import RANK
from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    aten,
    calls,
    is_call,
    module_path,
    shape_of,
    sources,
    stamp,
    stand_for,
)

NAME = "global_average_pooling"
BY_WINDOW = "global_average_pooling_by_window"

NOT_STATIC = "its size is not static"


def global_average_pooling(graph: Graph) -> Graph:
    """Return ``graph`` with every adaptive average pooling to 1x1 written as two means."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.adaptive_avg_pool2d.default):
        if not _pools_to_one(node):
            continue
        source = node.args[0]
        shape = shape_of(source)
        if shape is None or not isinstance(source, fx.Node):
            record.skipped(module_path(node), NOT_STATIC)
            continue
        with graph.module.graph.inserting_before(node):
            rows = graph.module.graph.call_function(aten.mean.dim, (source, [-1], True))
            mean = graph.module.graph.call_function(aten.mean.dim, (rows, [-2], True))
        stamp(rows, node).meta["val"] = node.meta["val"].new_empty((*shape[:-1], 1))
        stand_for(rows, None, sources(node))
        node.replace_all_uses_with(stamp(mean, node))
        record.fired([module_path(node)], "mean over the width, then over the height")
    return record.finish(graph)


def global_average_pooling_by_window(graph: Graph) -> Graph:
    """Return ``graph`` with every pooling or mean of the whole image written as average pooling by one window."""
    graph = graph.copy()
    record = Recorder(BY_WINDOW)
    for node in calls(graph.module.graph, aten.adaptive_avg_pool2d.default, aten.mean.dim):
        if not (_pools_to_one(node) or _is_mean_of_image(node)):
            continue
        shape = shape_of(node.args[0])
        if shape is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        with graph.module.graph.inserting_before(node):
            pooled = graph.module.graph.call_function(aten.avg_pool2d.default, (node.args[0], list(shape[-2:]), [1, 1]))
        node.replace_all_uses_with(stamp(pooled, node))
        record.fired([module_path(node)], "average pooling by one window")
    return record.finish(graph)


def _pools_to_one(node: fx.Node) -> bool:
    """Whether ``node`` is an adaptive average pooling to 1x1."""
    size = argument(node, 1, "output_size")
    is_pooling = is_call(node, aten.adaptive_avg_pool2d.default)
    return is_pooling and isinstance(size, (list, tuple)) and tuple(size) == (1, 1)


def _is_mean_of_image(node: fx.Node) -> bool:
    """Whether ``node`` is a mean of an image (N, C, H, W) over height and width that keeps both axes."""
    axes, value = argument(node, 1, "dim"), node.meta.get("val")
    return (
        is_call(node, aten.mean.dim)
        and isinstance(axes, (list, tuple))
        and isinstance(value, Tensor)
        and value.dim() == RANK
        and bool(argument(node, 2, "keepdim", False))
        and not node.kwargs.get("dtype")
        and {int(axis) % RANK for axis in axes} == {2, 3}
    )
