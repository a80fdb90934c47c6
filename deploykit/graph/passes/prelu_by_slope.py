"""PReLU with a slope per channel becomes ``x · (1 where x > 0, else a)``.

Algebra: ``prelu(x, a)`` is x where x > 0 and a·x elsewhere, so that it is x times one of two constants, to the last
bit. coreai-torch writes it as ``where(x > 0, x, a·x)``, and its optimizer then moves the slopes into the weights of
the convolution before: a second convolution, as large as the first, for the negative half alone. A product with what
depends on x cannot be moved.
"""

from __future__ import annotations

import torch
from torch import Tensor

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, calls, constant, module_path, shape_of, stamp

NAME = "prelu_by_slope"


def prelu_by_slope(graph: Graph) -> Graph:
    """Return ``graph`` with every PReLU that has a slope per channel written as a product."""
    graph = graph.copy()
    record = Recorder(NAME)
    fx_graph = graph.module.graph
    for node in calls(fx_graph, aten.prelu.default):
        x, slope = node.args
        weight, shape = constant(graph.module, slope), shape_of(node)
        if weight is None or shape is None:
            record.skipped(module_path(node), "the slopes are not constant or the size is not static")
            continue
        if weight.numel() == 1:
            continue
        path = f"{module_path(node)}.slopes".removeprefix("(root).")
        one = add_weight(graph.module, f"{path}.above", torch.ones((), dtype=weight.dtype), node)
        below = add_weight(graph.module, f"{path}.below", _along_channels(weight, len(shape)), node)
        with fx_graph.inserting_before(node):
            positive = fx_graph.call_function(aten.gt.Scalar, (x, 0))
            factor = fx_graph.call_function(aten.where.self, (positive, one, below))
            result = fx_graph.call_function(aten.mul.Tensor, (x, factor))
        for part in (positive, factor, result):
            stamp(part, node)
        positive.meta["val"] = torch.empty(shape, dtype=torch.bool, device="meta")
        node.replace_all_uses_with(result)
        record.fired([module_path(node)], "x times 1 or the slope")
    return record.finish(graph)


def _along_channels(slopes: Tensor, rank: int) -> Tensor:
    """Return ``slopes`` (C,) as (1, C, 1, …) of ``rank`` axes."""
    return slopes.reshape(1, -1, *[1] * (rank - 2))
