"""Pixel shuffle becomes one transpose of an image whose channels lie last.

Algebra: with the channels last, and those of a phase together, a line of W pixels holds s lines of s·W pixels,
interleaved: (N·H, W, s, s·C) transposed to (N·H, s, W, s·C) is (N, s·H, s·W, C). The order is the convolution's, where
the shuffle alone reads one: a dense one computes its channels in it, a depthwise one is taken apart into s² with C
channels each, since its channels cannot leave their group. TFLite's converter makes of a shuffle three transposes, two
of them from and to channels first; ONNX Runtime moves single values.
"""

from __future__ import annotations

from deploykit.graph.graph import Graph, Recorder, aten, calls, module_path, shape_of
from deploykit.graph.passes.phase_order import NOT_AN_IMAGE, OTHER_ORDER, Step, append, factor_of, phases_first

NAME = "pixel_shuffle_channels_last"
WIDE = "wide_pixel_shuffle_channels_last"

# Fewer make ONNX Runtime move pixels of a few values each.
WIDE_CHANNELS = 24

NARROW = "it has {count} channels: two transposes are cheaper"


def pixel_shuffle_channels_last(graph: Graph) -> Graph:
    """Return ``graph`` with every pixel shuffle of an image written as a transpose with the channels last."""
    return _rewritten(graph, Recorder(NAME), 1)


def wide_pixel_shuffle_channels_last(graph: Graph) -> Graph:
    """Return ``graph`` with every pixel shuffle to many channels written so."""
    return _rewritten(graph, Recorder(WIDE), WIDE_CHANNELS)


def _rewritten(graph: Graph, record: Recorder, fewest: int) -> Graph:
    graph = graph.copy()
    for node in calls(graph.module.graph, aten.pixel_shuffle.default):
        factor, shape, target = factor_of(node), shape_of(node.args[0]), shape_of(node)
        if factor is None or shape is None or target is None:
            record.skipped(module_path(node), NOT_AN_IMAGE)
            continue
        if target[1] < fewest:
            record.skipped(module_path(node), NARROW.format(count=target[1]))
            continue
        ordered = phases_first(graph.module, node, factor)
        if ordered is None:
            record.skipped(module_path(node), OTHER_ORDER)
            continue
        node.replace_all_uses_with(append(graph.module, node, ordered, _steps(shape, target, factor)))
        record.fired([module_path(node)], f"blocks of {factor}x{factor}")
    return record.finish(graph)


def _steps(shape: tuple[int, ...], target: tuple[int, ...], factor: int) -> list[Step]:
    """Return the steps of a shuffle from ``shape``, the channels of a phase together, to ``target``."""
    count, channels, height, width = shape
    lines, block, last = count * height, channels // factor, (target[0], *target[2:], target[1])
    return [
        (aten.permute.default, [[0, 2, 3, 1]], (count, height, width, channels)),
        (aten.reshape.default, [[lines, width, factor, block]], (lines, width, factor, block)),
        (aten.permute.default, [[0, 2, 1, 3]], (lines, factor, width, block)),
        (aten.reshape.default, [list(last)], last),
        (aten.permute.default, [[0, 3, 1, 2]], target),
    ]
