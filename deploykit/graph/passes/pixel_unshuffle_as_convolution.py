"""Pixel unshuffle becomes a grouped convolution whose kernels pick one pixel each.

Algebra: output channel ``c·r² + i·r + j`` at (h, w) is input channel ``c`` at ``(h·r + i, w·r + j)``. That is a
convolution with stride ``r`` and one group for each input channel, its kernels 1 at (i, j) and 0 elsewhere. Core ML
has pixel unshuffle from iOS 16 on only.
"""

from __future__ import annotations

from typing import Any

import torch

from deploykit.graph.graph import Graph, Recorder, add_weight, aten, calls, module_path, shape_of, stamp, weight_path

NAME = "pixel_unshuffle_as_convolution"

NOT_STATIC = "the size is not static"


def pixel_unshuffle_as_convolution(graph: Graph) -> Graph:
    """Return ``graph`` without pixel unshuffle of (batch, channels, height, width)."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.pixel_unshuffle.default):
        x, factor = node.args
        shape = shape_of(x)
        if shape is None or len(shape) != 4:
            record.skipped(module_path(node), NOT_STATIC)
            continue
        kernels = torch.eye(factor**2, dtype=x.meta["val"].dtype).view(-1, 1, factor, factor)
        weight = add_weight(graph.module, weight_path(node, "picks"), kernels.repeat(shape[1], 1, 1, 1), node)
        with graph.module.graph.inserting_before(node):
            result = graph.module.graph.call_function(
                aten.conv2d.default, (x, weight, None, [factor] * 2, [0, 0], [1, 1], shape[1])
            )
        node.replace_all_uses_with(stamp(result, node))
        record.fired([module_path(node)], f"a convolution of stride {factor}")
    return record.finish(graph)
