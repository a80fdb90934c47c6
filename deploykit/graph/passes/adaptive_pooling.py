"""Adaptive average pooling becomes plain average pooling, or two matrix products where its windows differ.

Algebra: output i of ``count`` averages the inputs from ``floor(i·n / count)`` up to, not including,
``ceil((i + 1)·n / count)``. Where these windows are equally long and equally far apart, that is average pooling with
their length as kernel and their distance as stride. Elsewhere each axis is a matrix, row i holding one over the length
of window i inside it and 0 outside: ``A_rows · x · A_columnsᵀ``. Converters write the second case as hundreds of
slices and additions, and one of them fails. Pooling to one value stays: every target has the mean.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, calls, module_path, shape_of, stamp, weight_path

NAME = "adaptive_pooling"

Windows = list[tuple[int, int]]


def adaptive_pooling(graph: Graph) -> Graph:
    """Return ``graph`` without adaptive average pooling over two axes, except to one value."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.adaptive_avg_pool2d.default):
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), "the size is not static")
            continue
        if target[-2:] == (1, 1):
            continue
        axes = [windows(size, count) for size, count in zip(source[-2:], target[-2:], strict=True)]
        steps = [even_step(axis) for axis in axes]
        with graph.module.graph.inserting_before(node):
            if all(steps):
                result = _average_pooling(graph.module.graph, node, axes, steps)
                detail = "average pooling"
            else:
                result = _products(graph.module, node, axes)
                detail = "two matrix products"
        node.replace_all_uses_with(stamp(result, node))
        record.fired([module_path(node)], f"{source[-2]}x{source[-1]} to {target[-2]}x{target[-1]} as {detail}")
    return record.finish(graph)


def windows(size: int, count: int) -> Windows:
    """Return (first, end) of the inputs that each of ``count`` outputs averages, of ``size`` inputs."""
    return [(index * size // count, -(-(index + 1) * size // count)) for index in range(count)]


def even_step(axis: Windows) -> int:
    """Return the distance between windows that are equally long and equally far apart, or 0."""
    lengths = {end - first for first, end in axis}
    steps = {later - first for (first, _), (later, _) in pairwise(axis)} or {1}
    return steps.pop() if len(lengths) == len(steps) == 1 else 0


def _average_pooling(graph: fx.Graph, node: fx.Node, axes: list[Windows], steps: list[int]) -> fx.Node:
    kernel = [end - first for (first, end), *_ in axes]
    return graph.call_function(aten.avg_pool2d.default, (node.args[0], kernel, steps))


def _products(module: fx.GraphModule, node: fx.Node, axes: list[Windows]) -> fx.Node:
    """Return ``((x · A_columnsᵀ)ᵀ · A_rowsᵀ)ᵀ``: both matrices stand where the weight of a linear layer stands."""
    x: Any = node.args[0]
    value = x.meta["val"]
    for axis, size, leaf in zip(reversed(axes), reversed(value.shape[-2:]), ("columns", "rows"), strict=True):
        matrix = _averages(axis, size, value.dtype)
        weight = add_weight(module, weight_path(node, f"{leaf}_averages"), matrix, node)
        averaged = module.graph.call_function(aten.linear.default, (x, weight))
        x = module.graph.call_function(aten.transpose.int, (averaged, -2, -1))
        stamp(averaged, node).meta["val"] = value = value.new_empty((*value.shape[:-1], len(axis)))
        stamp(x, node).meta["val"] = value = value.transpose(-2, -1)
    result: fx.Node = x
    return result


def _averages(axis: Windows, size: int, dtype: torch.dtype) -> Tensor:
    """Return the matrix (count, size) that averages the windows of ``axis``."""
    matrix = torch.zeros(len(axis), size, dtype=dtype)
    for row, (first, end) in enumerate(axis):
        matrix[row, first:end] = 1 / (end - first)
    return matrix
