"""Convolution with few output channels computes 2x2 output pixels at a time, and a pixel shuffle puts them in place.

Algebra: output ``(2i + r, 2j + q)`` sums ``w[y, x]`` over inputs ``(2i + r + y - p, 2j + q + x - p)``. With stride 2
and a kernel one larger, in which ``w`` lies at (r, q), channel ``4o + 2r + q`` is that output at (i, j). Runtimes
compute 8 or 16 output channels at a time, however few there are: here a quarter of the positions holds four times as
many.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import place_kernel
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
    sources,
    stamp,
    stand_for,
    weight_path,
)
from deploykit.graph.layers import groups_of, layer_weights

NAME = "convolution_in_blocks"

BLOCK = 2
# Four times as many fill the 16 lanes of a vector register.
MOST_CHANNELS = 4
# A 1x1 kernel would become 2x2: four times the products.
SMALLEST_KERNEL = 3
SMALLEST_MAP = 56 * 56

COMPUTED = "its weight is computed, not stored"
NOT_AN_IMAGE = "its value is not a static image (N, C, H, W)"
MANY_CHANNELS = "it has {count} output channels, which fill a register already"
SMALL_KERNEL = "its kernel is smaller than 3x3"
SMALL_MAP = "its map is small"
ODD_MAP = "its map has an odd side"
OTHER_STEPS = "it has a stride, dilation or groups"


def convolution_in_blocks(graph: Graph) -> Graph:
    """Return ``graph`` with every 2-D convolution of few channels on a large map computed in blocks."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.conv2d.default):
        reason = _why_not(graph.module, node)
        if reason:
            record.skipped(module_path(node), reason)
            continue
        node.replace_all_uses_with(_in_blocks(graph.module, node))
        record.fired([module_path(node)], f"blocks of {BLOCK}x{BLOCK}")
    return record.finish(graph)


def _why_not(module: fx.GraphModule, node: fx.Node) -> str:
    read, shape = layer_weights(module, node), shape_of(node)
    if shape is None or len(shape) != 4:
        return NOT_AN_IMAGE
    if read is None:
        return COMPUTED
    if shape[1] > MOST_CHANNELS:
        return MANY_CHANNELS.format(count=shape[1])
    steps = (*pair(argument(node, 3, "stride", 1)), *pair(argument(node, 5, "dilation", 1)), groups_of(node))
    if steps != (1, 1, 1, 1, 1):
        return OTHER_STEPS
    if min(read[0].shape[2:]) < SMALLEST_KERNEL:
        return SMALL_KERNEL
    if shape[2] % BLOCK or shape[3] % BLOCK:
        return ODD_MAP
    return SMALL_MAP if shape[2] * shape[3] < SMALLEST_MAP else ""


def _in_blocks(module: fx.GraphModule, node: Any) -> fx.Node:
    read, value = layer_weights(module, node), node.meta["val"]
    assert read is not None
    weight, bias = read
    stored = add_weight(module, weight_path(node, "blocks"), _kernel(weight), node)
    repeated = None
    if bias is not None:
        repeated = add_weight(module, weight_path(node, "block_bias"), bias.repeat_interleave(BLOCK**2), node)
    padding = list(pair(argument(node, 4, "padding", 0)))
    with module.graph.inserting_before(node):
        options = (stored, repeated, [BLOCK, BLOCK], padding)
        blocks = module.graph.call_function(aten.conv2d.default, (node.args[0], *options))
        result = module.graph.call_function(aten.pixel_shuffle.default, (blocks, BLOCK))
    count, channels, height, width = value.shape
    stand_for(stamp(blocks, node), None, sources(node))
    blocks.meta["val"] = value.new_empty((count, channels * BLOCK**2, height // BLOCK, width // BLOCK))
    return stamp(result, node)


def _kernel(weight: Tensor) -> Tensor:
    """Return ``weight`` (out, in, kh, kw) as (4 · out, in, kh + 1, kw + 1): one kernel per pixel of a block."""
    size = (weight.shape[2] + BLOCK - 1, weight.shape[3] + BLOCK - 1)
    pixels = [place_kernel(weight, size, (row, column)) for row in range(BLOCK) for column in range(BLOCK)]
    return torch.stack(pixels, 1).flatten(0, 1)
