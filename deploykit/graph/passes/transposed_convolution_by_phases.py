"""Transposed convolution becomes a convolution of as many phases as the stride has pixels, and a pixel shuffle.

Algebra, per axis with stride s and padding p: output ``j`` sums ``w[t]·x[i]`` over ``s·i + t - p = j``. The outputs
``j = s·n + r - p`` of one remainder r (a phase) read the taps ``t = r + s·m`` at ``i = n - m``: an ordinary convolution
of kernel ``ceil(k/s)``. So one convolution with s² times the channels gives all phases, the shuffle puts them side
by side, and p pixels are cut off at the border. A depthwise one of kernel 4, stride 2, padding 1 has its phases cut
by themselves in a kernel of 3, whose further taps are zeros: cheaper than to cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.channels import channels_of
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

NAME = "transposed_convolution_by_phases"
OVERLAPPING = "overlapping_transposed_convolution_by_phases"

# The largest kernel that a depthwise convolution may have so that nothing has to be cut.
WIDEST_UNCUT = 3

COMPUTED = "its weight is computed, not stored"
NOT_AN_IMAGE = "its value is not a static image (N, C, H, W)"
DILATED = "its taps are dilated"
ONE_PHASE = "stride 1 has one phase: it is a convolution already"
NO_OVERLAP = "its kernel is not two strides or more of them: no outputs share an input, or zeros fill the phases"
UNEVEN = "its strides differ between the axes: the shuffle has one factor"


@dataclass(frozen=True)
class _Given:
    """One axis of a transposed convolution: ``taps`` of kernel, from ``size`` to ``wanted`` pixels."""

    size: int
    wanted: int
    taps: int
    stride: int
    padding: int
    output_padding: int

    def offsets(self, shift: int) -> list[tuple[int, int, int]]:
        """Return phase, tap and the tap's offset to its input, with output 0 at place ``shift`` of the whole output."""
        return [
            (phase, tap, (phase + shift - tap) // self.stride)
            for phase in range(self.stride)
            for tap in range(self.taps)
            if (phase + shift - tap) % self.stride == 0
        ]


@dataclass(frozen=True)
class _Axis:
    """The convolution of all phases along one axis: tap ``places[r, i, t]`` is 1 where phase r has tap t at i.

    ``first`` pixels are cut before the ``size`` that remain of ``whole``.
    """

    places: Tensor
    padding: int
    first: int
    size: int
    whole: int


def transposed_convolution_by_phases(graph: Graph) -> Graph:
    """Return ``graph`` with every 2-D transposed convolution as a convolution and a pixel shuffle."""
    return _rewritten(graph, Recorder(NAME), any_kernel=True)


def overlapping_transposed_convolution_by_phases(graph: Graph) -> Graph:
    """Return ``graph`` with those whose kernel is a multiple of the stride, and larger, written so.

    ONNX Runtime multiplies first and adds what overlaps afterwards: without overlap that is cheaper than a shuffle.
    """
    return _rewritten(graph, Recorder(OVERLAPPING), any_kernel=False)


def _rewritten(graph: Graph, record: Recorder, *, any_kernel: bool) -> Graph:
    graph = graph.copy()
    for node in calls(graph.module.graph, aten.conv_transpose2d.input):
        reason = _why_not(graph.module, node, any_kernel=any_kernel)
        if reason:
            record.skipped(module_path(node), reason)
            continue
        result, taps = _phases(graph.module, node)
        node.replace_all_uses_with(result)
        stride = pair(argument(node, 3, "stride", 1))[0]
        record.fired([module_path(node)], f"{stride * stride} phases of kernel {taps} and a pixel shuffle")
    return record.finish(graph)


def _why_not(module: fx.GraphModule, node: fx.Node, *, any_kernel: bool) -> str:
    stride, read = pair(argument(node, 3, "stride", 1)), layer_weights(module, node)
    if read is None:
        return COMPUTED
    if channels_of(node) is None or channels_of(node.args[0]) is None:
        return NOT_AN_IMAGE
    if pair(argument(node, 7, "dilation", 1)) != (1, 1):
        return DILATED
    if stride[0] != stride[1]:
        return UNEVEN
    if stride == (1, 1):
        return ONE_PHASE
    overlaps = all(taps % stride[0] == 0 and taps > stride[0] for taps in read[0].shape[2:])
    return "" if any_kernel or overlaps else NO_OVERLAP


def _phases(module: fx.GraphModule, node: Any) -> tuple[fx.Node, tuple[int, int]]:
    """Return what stands for ``node``, and the kernel of its convolution."""
    read, given, wanted = layer_weights(module, node), shape_of(node.args[0]), shape_of(node)
    assert read is not None
    assert given is not None
    assert wanted is not None
    weight, bias = read
    groups, stride = groups_of(node), pair(argument(node, 3, "stride", 1))
    padding, further = pair(argument(node, 4, "padding", 0)), pair(argument(node, 5, "output_padding", 0))
    per_axis = zip(given[2:], wanted[2:], weight.shape[2:], stride, padding, further, strict=True)
    rows, columns = (_axis(_Given(*numbers), uncut=groups == weight.shape[0]) for numbers in per_axis)
    kernel = _kernel(weight, groups, rows, columns)
    stored = add_weight(module, weight_path(node, "phases"), kernel, node)
    repeated = None
    if bias is not None:
        repeated = add_weight(module, weight_path(node, "phase_bias"), bias.repeat_interleave(stride[0] ** 2), node)
    value = node.meta["val"]
    sides = (rows.whole, columns.whole)
    with module.graph.inserting_before(node):
        options = ([1, 1], [rows.padding, columns.padding], [1, 1], groups)
        phases = module.graph.call_function(aten.conv2d.default, (node.args[0], stored, repeated, *options))
        shuffled: Any = module.graph.call_function(aten.pixel_shuffle.default, (phases, stride[0]))
        parts = [
            (phases, (given[0], kernel.shape[0], *(side // stride[0] for side in sides))),
            (shuffled, (*wanted[:2], *sides)),
        ]
        for axis, cut in ((2, rows), (3, columns)):
            if (cut.first, cut.size) != (0, cut.whole):
                shuffled = module.graph.call_function(
                    aten.slice.Tensor, (shuffled, axis, cut.first, cut.first + cut.size)
                )
                before = parts[-1][1]
                parts.append((shuffled, (*before[:axis], cut.size, *before[axis + 1 :])))
    for part, shape in parts:
        stamp(part, node).meta["val"] = value.new_empty(shape)
        if part is not shuffled:
            stand_for(part, None, sources(node))
    return shuffled, (int(kernel.shape[2]), int(kernel.shape[3]))


def _axis(given: _Given, *, uncut: bool) -> _Axis:
    """Return the phases of exactly the wanted output, if ``uncut`` and in a small kernel; else of one to be cut."""
    reach = max((abs(offset) for _, _, offset in given.offsets(given.padding)), default=0)
    if uncut and given.wanted == given.stride * given.size and 2 * reach + 1 <= WIDEST_UNCUT:
        return _Axis(_places(given, given.padding, 2 * reach + 1, reach), reach, 0, given.wanted, given.wanted)
    # Output padding may reach beyond the last tap; what it adds is zero.
    furthest = max(given.taps, given.taps + given.output_padding - given.padding)
    wide = -(-furthest // given.stride)
    whole = given.stride * (given.size + wide - 1)
    return _Axis(_places(given, 0, wide, wide - 1), wide - 1, given.padding, given.wanted, whole)


def _places(given: _Given, shift: int, wide: int, centre: int) -> Tensor:
    """Return zeros (stride, wide, taps) with 1 where a phase has a tap; ``centre`` is the place of offset 0."""
    places = torch.zeros(given.stride, wide, given.taps, dtype=torch.float64)
    for phase, tap, offset in given.offsets(shift):
        places[phase, centre + offset, tap] = 1
    return places


def _kernel(weight: Tensor, groups: int, rows: _Axis, columns: _Axis) -> Tensor:
    """Return the weight (out · s², in / groups, …) of the convolution for a transposed one's (in, out / groups, …)."""
    inputs, outputs, height, width = weight.shape
    plain = weight.reshape(groups, inputs // groups, outputs, height, width).transpose(1, 2).flatten(0, 1)
    places = (rows.places.to(weight.dtype), columns.places.to(weight.dtype))
    phases = torch.einsum("oiyx,rhy,qwx->orqihw", plain, *places)
    return phases.flatten(0, 2).contiguous()
