"""Bilinear ``grid_sample`` becomes four gathers of whole pixels and their interpolation.

Algebra: with the position (x, y) of a sample in pixels, ``l = floor(x)``, ``t = floor(y)``, ``a = x - l`` and
``b = y - t``, the sample is ``lerp(lerp(p(t, l), p(t, l+1), a), lerp(p(t+1, l), p(t+1, l+1), a), b)``. Padding with
zeros needs no masks: one pixel of zeros around the image, with positions clamped to it, gives the same ramp to zero
at the border and zero beyond. Padding with the border clamps the positions to the image. TFLite has no such operation,
and its converter makes about 115 of one, with an index for every channel.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from deploykit.graph.graph import Graph, Recorder, argument, aten, calls, module_path, shape_of, stamp

NAME = "grid_sample_by_gather"

BILINEAR = 0
ZEROS, BORDER = 0, 1
_ORIGIN = ("nn_module_stack", "stack_trace", "custom", "deploykit_module")


def grid_sample_by_gather(graph: Graph) -> Graph:
    """Return ``graph`` with every bilinear ``grid_sample`` of one image written as gathers."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.grid_sampler.default, aten.grid_sampler_2d.default):
        reason = _reason_not_to(node)
        if reason:
            record.skipped(module_path(node), reason)
            continue
        node.replace_all_uses_with(_gathers(graph.module.graph, node))
        record.fired([module_path(node)], "four gathers")
    return record.finish(graph)


def _reason_not_to(node: fx.Node) -> str | None:
    image = shape_of(node.args[0])
    if image is None or shape_of(node.args[1]) is None:
        return "the size is not static"
    if len(image) != 4:
        return "it samples a volume"
    if image[0] != 1:
        return "it samples more than one image"
    if argument(node, 2, "interpolation_mode") != BILINEAR:
        return "the interpolation is not bilinear"
    if argument(node, 3, "padding_mode") not in (ZEROS, BORDER):
        return "the padding is a reflection"
    return None


def sample_by_gather(image: Tensor, grid: Tensor, *, zeros: bool, align_corners: bool) -> Tensor:
    """Return what ``grid_sample`` returns, bilinear, for one ``image`` (1, C, H, W) and ``grid`` (1, h, w, 2).

    ``zeros`` are outside the image, else its border is. The grid is finite.
    """
    _, channels, height, width = image.shape
    _, rows, columns, _ = grid.shape
    points = grid.reshape(rows * columns, 2)
    left, across = _neighbour(points[:, 0:1], width, zeros, align_corners)
    top, down = _neighbour(points[:, 1:2], height, zeros, align_corners)
    if zeros:
        image = F.pad(image, (1, 1, 1, 1))
        height, width = height + 2, width + 2
    pixels = image.permute(0, 2, 3, 1).reshape(height * width, channels)
    # The next pixel of an image one pixel wide or high is that pixel.
    right, below = min(1, width - 1), width * min(1, height - 1)
    first = (top * width + left).to(torch.int32).reshape(rows * columns)
    upper = _between(pixels, first, first + right, across)
    lower = _between(pixels, first + below, first + (below + right), across)
    out = upper + (lower - upper) * down
    return out.reshape(1, rows, columns, channels).permute(0, 3, 1, 2)


def _neighbour(coordinate: Tensor, size: int, zeros: bool, align_corners: bool) -> tuple[Tensor, Tensor]:
    """Return the pixel before each coordinate, counted in the padded image, and the distance from it, 0 to 1."""
    position = (coordinate + 1) * ((size - 1) / 2) if align_corners else (coordinate + 1) * (size / 2) - 0.5
    last = size + 1 if zeros else size - 1
    position = (position + 1 if zeros else position).clamp(0, last)
    before = position.floor().clamp(max=max(last - 1, 0))
    return before, position - before


def _between(pixels: Tensor, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    # An embedding, because TFLite's converter makes one operation of it and eight of an index.
    start = F.embedding(first, pixels)
    return start + (F.embedding(second, pixels) - start) * share


def _gathers(graph: fx.Graph, node: fx.Node) -> fx.Node:
    """Return the node, inserted with all that it needs before ``node``, whose value is that of ``node``."""
    zeros, align_corners = argument(node, 3, "padding_mode") == ZEROS, bool(argument(node, 4, "align_corners"))

    def sampled(image: Tensor, grid: Tensor) -> Tensor:
        return sample_by_gather(image, grid, zeros=zeros, align_corners=align_corners)

    operands: list[Any] = list(node.args[:2])
    examples = [torch.empty_like(one.meta["val"], device="meta") for one in operands]
    traced = make_fx(sampled)(*examples).graph
    places: dict[Any, Any] = dict(zip(traced.find_nodes(op="placeholder"), operands, strict=True))
    with graph.inserting_before(node):
        for one in traced.nodes:
            if one.op == "call_function":
                places[one] = stamp(graph.node_copy(one, lambda source: places[source]), node, _ORIGIN)
    result: fx.Node = places[traced.output_node().args[0]]
    return result
