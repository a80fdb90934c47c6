"""Average pooling with a divisor of its own becomes plain average pooling and one product.

Algebra: with ``divisor_override`` the sum over a window, zeros beside the input among its values, is divided by the
divisor. The plain average over the same window divides it by the size of the kernel:
``sum / divisor = average · (kernel / divisor)``. The ONNX exporter forgets the divisor, Core ML's converter refuses it.
"""

from __future__ import annotations

from typing import Any

from deploykit.graph.graph import Graph, Recorder, argument, aten, calls, module_path, shape_of, stamp
from deploykit.graph.passes.ceil_average_pooling import NOT_STATIC, axes_of, zero_padded

NAME = "average_pooling_divisor"


def average_pooling_divisor(graph: Graph) -> Graph:
    """Return ``graph`` without 2-D average pooling that overrides its divisor."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.avg_pool2d.default):
        divisor: Any = argument(node, 6, "divisor_override")
        if divisor is None:
            continue
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        axes = axes_of(node, source[-2:], target[-2:])
        kernel, steps = [axis.kernel for axis in axes], [axis.stride for axis in axes]
        with graph.module.graph.inserting_before(node):
            padded = zero_padded(graph, node, axes)
            average = stamp(graph.module.graph.call_function(aten.avg_pool2d.default, (padded, kernel, steps)), node)
            factor = kernel[0] * kernel[1] / divisor
            result = stamp(graph.module.graph.call_function(aten.mul.Tensor, (average, factor)), node)
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], f"average times {factor:g}")
    return record.finish(graph)
