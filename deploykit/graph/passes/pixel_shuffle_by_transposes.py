"""Pixel shuffle becomes two transposes, each of one axis: first the columns of a block, then its rows.

Algebra: the axis q of phase (r, q) moves behind the pixels of an image, which makes lines of s·W pixels; then r moves
behind the lines. ONNX Runtime's DepthToSpace moves both at once, one value at a time: twice as slow. The convolution
that the shuffle alone reads gives the channels of a phase together; a depthwise one becomes s², because ONNX Runtime
has no blocked kernel for one with s² times its input's channels.
"""

from __future__ import annotations

from deploykit.graph.graph import Graph, Recorder, aten, calls, module_path, shape_of
from deploykit.graph.passes.phase_order import NOT_AN_IMAGE, OTHER_ORDER, Step, append, factor_of, phases_first

NAME = "pixel_shuffle_by_transposes"


def pixel_shuffle_by_transposes(graph: Graph) -> Graph:
    """Return ``graph`` with every pixel shuffle of an image written as two transposes between reshapes."""
    graph = graph.copy()
    record = Recorder(NAME)
    for node in calls(graph.module.graph, aten.pixel_shuffle.default):
        factor, shape, target = factor_of(node), shape_of(node.args[0]), shape_of(node)
        if factor is None or shape is None or target is None:
            record.skipped(module_path(node), NOT_AN_IMAGE)
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
    rows, values = count * factor, channels * height * width // factor**2
    lines, line = channels // factor**2 * height, width * factor
    return [
        (aten.reshape.default, [[rows, factor, values]], (rows, factor, values)),
        (aten.transpose.int, (1, 2), (rows, values, factor)),
        (aten.reshape.default, [[count, factor, lines, line]], (count, factor, lines, line)),
        (aten.transpose.int, (1, 2), (count, lines, factor, line)),
        (aten.reshape.default, [list(target)], target),
    ]
