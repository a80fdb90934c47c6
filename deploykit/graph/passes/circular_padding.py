"""Circular padding becomes a join of slices.

Algebra: along each axis ``pad(x, before, after) = [x[n - before:], x, x[:after]]``, one axis after the other. Core
ML's converter knows no circular mode.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from deploykit.graph.graph import Graph, Recorder, argument, aten, calls, module_path, shape_of, stamp

NAME = "circular_padding"

NOT_STATIC = "the size is not static"
CROPS = "it crops as well"


def circular_padding(graph: Graph) -> Graph:
    """Return ``graph`` without circular padding."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.pad.default):
        if argument(node, 2, "mode", "constant") != "circular":
            continue
        shape = shape_of(node.args[0])
        widths = list(node.args[1])
        if shape is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        if min(widths) < 0:
            record.skipped(module_path(node), CROPS)
            continue
        x = node.args[0]
        with graph.module.graph.inserting_before(node):
            # The widths begin with the last axis.
            for axis, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True), 1):
                x = _joined(graph.module.graph, x, len(shape) - axis, before, after)
        node.replace_all_uses_with(x)
        record.fired([module_path(node)], f"slices joined for {widths}")
    return record.finish(graph)


def _joined(graph: fx.Graph, x: Any, dim: int, before: int, after: int) -> Any:
    """Return ``x`` with its last ``before`` slices in front along ``dim``, and its first ``after`` behind."""
    value = x.meta["val"]
    size = value.shape[dim]
    parts = []
    for first, end in ((size - before, size), (0, size), (0, after)):
        if end - first == size:
            parts.append(x)
        elif end > first:
            piece = stamp(graph.call_function(aten.slice.Tensor, (x, dim, first, end)), x)
            piece.meta["val"] = value.narrow(dim, first, end - first)
            parts.append(piece)
    if len(parts) == 1:
        return x
    joined = stamp(graph.call_function(aten.cat.default, (parts, dim)), x)
    joined.meta["val"] = value.new_empty([s + before + after if d == dim else s for d, s in enumerate(value.shape)])
    return joined
