"""Adaptive max pooling becomes plain max pooling, or maxima of slices where its windows differ.

Algebra: output i of ``count`` is the maximum of the inputs from ``floor(i·n / count)`` up to, not including,
``ceil((i + 1)·n / count)``. Where these windows are equally long and equally far apart, that is max pooling with their
length as kernel and their distance as stride. A maximum over rows and columns is one over columns of one over rows, so
elsewhere each axis joins the maxima of its windows. The ONNX exporter takes only sizes that divide, TFLite's none.
"""

from __future__ import annotations

import operator
from typing import Any

from torch import fx

from deploykit.graph.graph import Graph, Recorder, aten, calls, module_path, shape_of, stamp
from deploykit.graph.passes.adaptive_pooling import Windows, even_step, windows

NAME = "adaptive_max_pooling"

INDICES = "the positions of the maxima are read"
NOT_STATIC = "the size is not static"


def adaptive_max_pooling(graph: Graph) -> Graph:
    """Return ``graph`` without adaptive max pooling over two axes."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.adaptive_max_pool2d.default):
        readers = list(node.users)
        source = shape_of(node.args[0])
        if source is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        if any(reader.target is not operator.getitem or reader.args[1] != 0 for reader in readers):
            record.skipped(module_path(node), INDICES)
            continue
        wanted = node.args[1]
        axes = [windows(size, count) for size, count in zip(source[-2:], wanted, strict=True)]
        kernel, steps = [axis[0][1] - axis[0][0] for axis in axes], [even_step(axis) for axis in axes]
        with graph.module.graph.inserting_before(node):
            if all(steps):
                call = (aten.max_pool2d.default, (node.args[0], kernel, steps))
                result, detail = graph.module.graph.call_function(*call), "max pooling"
            else:
                result, detail = _maxima(graph.module.graph, node, axes), "maxima of slices"
        for reader in readers:
            reader.replace_all_uses_with(stamp(result, reader))
        record.fired([module_path(node)], f"{source[-2]}x{source[-1]} to {wanted[0]}x{wanted[1]} as {detail}")
    return record.finish(graph)


def _maxima(graph: fx.Graph, node: Any, axes: list[Windows]) -> fx.Node:
    """Return the maxima over ``axes``, rows first: those of the windows of an axis joined along it."""
    x: Any = node.args[0]
    for dim, axis in zip((-2, -1), axes, strict=True):
        value = x.meta["val"]
        place = value.dim() + dim
        parts = []
        for first, end in axis:
            piece = stamp(graph.call_function(aten.slice.Tensor, (x, place, first, end)), x)
            piece.meta["val"] = value.narrow(place, first, end - first)
            largest = stamp(graph.call_function(aten.amax.default, (piece, [place], True)), x)
            largest.meta["val"] = value.narrow(place, 0, 1)
            parts.append(largest)
        shape = [len(axis) if d == place else size for d, size in enumerate(value.shape)]
        x = stamp(graph.call_function(aten.cat.default, (parts, place)), node)
        x.meta["val"] = value.new_empty(shape)
    result: fx.Node = x
    return result
