"""Average pooling that rounds its size up becomes pooling that rounds down, and one product where windows differ.

Algebra: average pooling divides the sum over a window by a count, the same along each row of outputs and each column:
``average = sum / (rows · columns)``. Rows and columns are counted within the padded input, or within the input alone
without ``count_include_pad``; what hangs over the padded input with ``ceil_mode`` never counts. So it is the plain
average over ``kernel`` values of the input with zeros all around it, times ``kernel / count``: a constant for each
output. TFLite's converter pads by the difference of two sizes, which is negative where a
window is dropped, and the file does not load.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    argument,
    aten,
    calls,
    module_path,
    pair,
    shape_of,
    stamp,
    weight_path,
)

NAME = "ceil_average_pooling"

NOT_STATIC = "the size is not static"


@dataclass(frozen=True)
class Axis:
    """One axis of a pooling: its window, the ``padding`` asked for on both sides, zeros ``behind`` all that is read."""

    size: int
    count: int
    kernel: int
    stride: int
    padding: int

    @property
    def behind(self) -> int:
        """How many values behind the input the last window reads: less than 0 where it ends before the end."""
        return (self.count - 1) * self.stride + self.kernel - self.size - self.padding

    def counts(self, include_padding: bool) -> list[int]:
        """Return how many values each output divides by."""
        found = []
        for index in range(self.count):
            first = index * self.stride - self.padding
            end = min(first + self.kernel, self.size + self.padding)
            if not include_padding:
                first, end = max(first, 0), min(end, self.size)
            found.append(end - first)
        return found


def ceil_average_pooling(graph: Graph) -> Graph:
    """Return ``graph`` with every 2-D average pooling that rounds up written as one that rounds down."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.avg_pool2d.default):
        if not argument(node, 4, "ceil_mode", False) or argument(node, 6, "divisor_override") is not None:
            continue
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        axes = axes_of(node, source[-2:], target[-2:])
        with graph.module.graph.inserting_before(node):
            padded = zero_padded(graph, node, axes)
            kernel, steps = [axis.kernel for axis in axes], [axis.stride for axis in axes]
            result = stamp(graph.module.graph.call_function(aten.avg_pool2d.default, (padded, kernel, steps)), node)
        factors = _factors(axes, bool(argument(node, 5, "count_include_pad", True)))
        if not bool((factors == 1).all()):
            weight = add_weight(graph.module, weight_path(node, "factors"), factors.to(node.meta["val"].dtype), node)
            with graph.module.graph.inserting_before(node):
                result = stamp(graph.module.graph.call_function(aten.mul.Tensor, (result, weight)), node)
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], f"{[axis.behind for axis in axes]} more zeros behind, rounded down")
    return record.finish(graph)


def axes_of(node: Any, source: Sequence[int], target: Sequence[int]) -> list[Axis]:
    """Return the rows and the columns of the pooling ``node`` from ``source`` to ``target``, both (height, width)."""
    kernel = pair(argument(node, 1, "kernel_size"))
    stride = pair(argument(node, 2, "stride", ()) or kernel)
    padding = pair(argument(node, 3, "padding", 0))
    return [Axis(*axis) for axis in zip(source, target, kernel, stride, padding, strict=True)]


def zero_padded(graph: Graph, node: Any, axes: Sequence[Axis]) -> Any:
    """Return the input of ``node`` with zeros wherever a window reads beside it."""
    x = node.args[0]
    widths = [width for axis in reversed(axes) for width in (axis.padding, max(axis.behind, 0))]
    if not any(widths):
        return x
    padded = stamp(graph.module.graph.call_function(aten.constant_pad_nd.default, (x, widths)), x)
    value = x.meta["val"]
    sides = [axis.size + axis.padding + max(axis.behind, 0) for axis in axes]
    padded.meta["val"] = value.new_empty([*value.shape[:-2], *sides])
    return padded


def _factors(axes: Sequence[Axis], include_padding: bool) -> Tensor:
    """Return kernel / count of each output, (rows, columns), in float64."""
    rows, columns = axes
    size = rows.kernel * columns.kernel
    counts = [torch.tensor(axis.counts(include_padding), dtype=torch.float64) for axis in axes]
    return size / torch.outer(*counts)
