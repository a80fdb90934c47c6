"""A nearest-neighbour resize by a ratio that is no whole number becomes the choice of rows and of columns.

Algebra: each row of the result is a row of the input, and each column a column: which ones, the resize of the numbers
of all rows says. TFLite's converter places the samples in another way, which chooses other pixels.
"""

from __future__ import annotations

from typing import Any

import torch

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, calls, module_path, shape_of, stamp, weight_path

NAME = "nearest_by_index"

NOT_STATIC = "the size is not static"


def nearest_by_index(graph: Graph) -> Graph:
    """Return ``graph`` with every uneven or ``nearest-exact`` resize written as two selections."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.upsample_nearest2d.vec, aten._upsample_nearest_exact2d.vec):
        source, target = shape_of(node.args[0]), shape_of(node)
        if source is None or target is None:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        even = all(wanted % size == 0 for size, wanted in zip(source[-2:], target[-2:], strict=True))
        if even and node.target is aten.upsample_nearest2d.vec:
            continue
        x = node.args[0]
        value = x.meta["val"]
        factors = (*node.args, None)[2]
        for axis, leaf in ((0, "rows"), (1, "columns")):
            dim = len(source) - 2 + axis
            numbers = torch.arange(source[dim], dtype=torch.float64).view(1, 1, -1, 1)
            given = [factors[axis], 1.0] if factors else None
            chosen = node.target(numbers, None if given else [target[dim], 1], given)
            index = chosen.flatten().to(torch.int64)
            stored = add_weight(graph.module, weight_path(node, leaf), index, node)
            with graph.module.graph.inserting_before(node):
                x = stamp(graph.module.graph.call_function(aten.index_select.default, (x, dim, stored)), node)
            shape = [len(index) if d == dim else size for d, size in enumerate(value.shape)]
            x.meta["val"] = value = value.new_empty(shape)
        node.replace_all_uses_with(x)
        record.fired([module_path(node)], f"{source[-2]}x{source[-1]} to {target[-2]}x{target[-1]}")
    return record.finish(graph)
