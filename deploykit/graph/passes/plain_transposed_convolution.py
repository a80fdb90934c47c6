"""Transposed convolution with output padding, dilation or an uneven crop becomes one without, by zeros in its kernel.

Algebra: output ``j`` sums ``w[t]·x[i]`` over all ``i·stride + t·dilation - padding = j``. A kernel with
``dilation - 1`` zeros between its taps has its taps at ``t·dilation`` by itself. ``output_padding`` computes as many
further outputs at the end; a kernel with as many zeros behind its last tap reaches these outputs, and adds nothing
to any. ``padding`` leaves out the first and the last outputs, as a slice of the result without padding does. TFLite's
converter takes neither of the first two, and no padding but none or half of ``kernel - stride``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx

from deploykit.graph.graph import (
    Graph,
    Recorder,
    add_weight,
    argument,
    aten,
    calls,
    constant,
    module_path,
    pair,
    shape_of,
    stamp,
    weight_path,
)

NAME = "plain_transposed_convolution"

NOT_STATIC = "the size is not static"
COMPUTED = "its weight is computed, not stored"


def plain_transposed_convolution(graph: Graph) -> Graph:
    """Return ``graph`` with every 2-D transposed convolution in the form that TFLite has."""
    graph = graph.copy()
    record = Recorder(NAME)
    node: Any
    for node in calls(graph.module.graph, aten.conv_transpose2d.input):
        target = shape_of(node)
        further, dilation = pair(argument(node, 5, "output_padding", 0)), pair(argument(node, 7, "dilation", 1))
        stride, padding = pair(argument(node, 3, "stride", 1)), pair(argument(node, 4, "padding", 0))
        weight = constant(graph.module, node.args[1])
        if weight is None or target is None:
            record.skipped(module_path(node), NOT_STATIC if target is None else COMPUTED)
            continue
        plain = weight if (*further, *dilation) == (0, 0, 1, 1) else _with_zeros(weight, dilation, further)
        crop = not _is_expressible(plain.shape[2:], stride, padding)
        if plain is weight and not crop:
            continue
        stored = node.args[1]
        if plain is not weight:
            stored = add_weight(graph.module, weight_path(node, "plain_weight"), plain, node)
        options: Any = (argument(node, 2, "bias"), list(stride), [0, 0] if crop else list(padding), [0, 0])
        groups: Any = argument(node, 6, "groups", 1)
        with graph.module.graph.inserting_before(node):
            result: Any = graph.module.graph.call_function(node.target, (node.args[0], stored, *options, groups))
            stamp(result, node)
            if crop:
                result = _cropped(graph, result, padding)
        node.replace_all_uses_with(result)
        how = f"kernel {tuple(plain.shape[2:])}" + (f", {padding} cropped" if crop else "")
        record.fired([module_path(node)], f"output padding {further}, dilation {dilation}: {how}")
    return record.finish(graph)


def _is_expressible(kernel: Sequence[int], stride: tuple[int, int], padding: tuple[int, int]) -> bool:
    """Whether ``padding`` is none on both axes, or on both what keeps the size a multiple of the input's."""
    return padding == (0, 0) or all(
        2 * cut == taps - step for taps, step, cut in zip(kernel, stride, padding, strict=True)
    )


def _cropped(graph: Graph, whole: Any, padding: tuple[int, int]) -> Any:
    """Return what the transposed convolution ``whole``, made without padding, is with ``padding``."""
    x, weight, _, stride = (part.meta["val"] if isinstance(part, fx.Node) else part for part in whole.args[:4])
    value = wanted = whole.meta["val"]
    sides = [(size - 1) * step + taps for size, step, taps in zip(x.shape[2:], stride, weight.shape[2:], strict=True)]
    whole.meta["val"] = value = value.new_empty([*value.shape[:2], *sides])
    for axis, first in zip((2, 3), padding, strict=True):
        end = first + wanted.shape[axis]
        whole = stamp(graph.module.graph.call_function(aten.slice.Tensor, (whole, axis, first, end)), whole)
        whole.meta["val"] = value = value.narrow(axis, first, end - first)
    return whole


def _with_zeros(weight: Tensor, dilation: tuple[int, int], behind: tuple[int, int]) -> Tensor:
    """Return ``weight`` (in, out / groups, kh, kw) with zeros between its taps, and ``behind`` its last ones."""
    height, width = (
        step * (taps - 1) + 1 + more for taps, step, more in zip(weight.shape[2:], dilation, behind, strict=True)
    )
    plain = weight.new_zeros(*weight.shape[:2], height, width)
    rows, columns = (step * (taps - 1) + 1 for taps, step in zip(weight.shape[2:], dilation, strict=True))
    plain[:, :, : rows : dilation[0], : columns : dilation[1]] = weight
    return plain
