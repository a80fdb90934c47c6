"""Max pooling that rounds its size up repeats the last row and column of its input, and then rounds down.

Algebra: with ``ceil_mode`` the last window hangs over the border by ``(out - 1)·stride + kernel - n - 2·padding``
values, which count as minus infinity. It begins at a value of the input (PyTorch drops a window that does not) and
so contains the last one; values equal to that one change no maximum. This needs taps without gaps: dilation 1.
TFLite's converter writes a pooling that hangs over in one axis alone as ``SAME`` in both, which has other windows.
"""

from __future__ import annotations

from typing import Any

from deploykit.graph.graph import Graph, Recorder, argument, aten, calls, module_path, pair, shape_of, stamp

NAME = "ceil_max_pooling"

DILATED = "its taps have gaps, so that a window need not contain the last value"
NOT_STATIC = "the size is not static"


def ceil_max_pooling(graph: Graph) -> Graph:
    """Return ``graph`` with every max pooling that rounds up written as one that rounds down."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.max_pool2d.default):
        if not argument(node, 5, "ceil_mode", False):
            continue
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        if set(pair(argument(node, 4, "dilation", 1))) != {1}:
            record.skipped(module_path(node), DILATED)
            continue
        kernel = pair(argument(node, 1, "kernel_size"))
        stride = pair(argument(node, 2, "stride", ()) or kernel)
        padding = pair(argument(node, 3, "padding", 0))
        over = [
            max((out - 1) * step + length - size - 2 * pad, 0)
            for size, out, length, step, pad in zip(source[-2:], target[-2:], kernel, stride, padding, strict=True)
        ]
        x = node.args[0]
        with graph.module.graph.inserting_before(node):
            for axis, count in zip((-2, -1), over, strict=True):
                x = _repeated(graph, x, axis, count)
            pooled = graph.module.graph.call_function(
                aten.max_pool2d.default, (x, list(kernel), list(stride), list(padding))
            )
        node.replace_all_uses_with(stamp(pooled, node))
        record.fired([module_path(node)], f"{over[0]} rows and {over[1]} columns repeated")
    return record.finish(graph)


def _repeated(graph: Graph, x: Any, axis: int, count: int) -> Any:
    """Return ``x`` with the last slice of ``axis`` repeated ``count`` times behind it."""
    if not count:
        return x
    value = x.meta["val"]
    fx_graph = graph.module.graph
    size, dim = value.shape[axis], value.dim() + axis
    last = stamp(fx_graph.call_function(aten.slice.Tensor, (x, dim, size - 1, size)), x)
    last.meta["val"] = value.narrow(dim, size - 1, 1)
    longer = stamp(fx_graph.call_function(aten.cat.default, ([x, *[last] * count], dim)), x)
    longer.meta["val"] = value.new_empty([size + count if d == dim else n for d, n in enumerate(value.shape)])
    return longer
