"""Average pooling that leaves the padding out of its count becomes one that counts it, and one product.

Algebra: both sum the same window, with zeros beside the input; without ``count_include_pad`` the sum is divided by the
number of values that lie in the input, with it by the size of the kernel: ``sum / count = average · (kernel / count)``,
a constant for each output. Core AI's converter counts the padding always.
"""

from __future__ import annotations

from typing import Any

import torch

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    argument,
    aten,
    calls,
    module_path,
    shape_of,
    stamp,
    weight_path,
)
from deploykit.graph.passes.ceil_average_pooling import NOT_STATIC, axes_of

NAME = "average_pooling_border"


def average_pooling_border(graph: Graph) -> Graph:
    """Return ``graph`` with every padded 2-D average pooling counting its padding; rounding up is another pass."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.avg_pool2d.default):
        rounds_up, counts = argument(node, 4, "ceil_mode", False), argument(node, 5, "count_include_pad", True)
        if rounds_up or counts or argument(node, 6, "divisor_override") is not None:
            continue
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        axes = axes_of(node, source[-2:], target[-2:])
        if not any(axis.padding for axis in axes):
            continue
        rows, columns = (axis.kernel / torch.tensor(axis.counts(False), dtype=torch.float64) for axis in axes)
        weight = add_weight(
            graph.module, weight_path(node, "factors"), torch.outer(rows, columns).to(node.meta["val"].dtype), node
        )
        kernel, steps, padding = zip(*((axis.kernel, axis.stride, axis.padding) for axis in axes), strict=True)
        with graph.module.graph.inserting_before(node):
            inputs = (node.args[0], list(kernel), list(steps), list(padding))
            average = stamp(graph.module.graph.call_function(aten.avg_pool2d.default, inputs), node)
            result = stamp(graph.module.graph.call_function(aten.mul.Tensor, (average, weight)), node)
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], "counts the padding, times a constant")
    return record.finish(graph)
