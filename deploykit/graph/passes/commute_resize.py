"""A 1x1 convolution next to a resize is computed on whichever side has fewer multiply-accumulates.

Algebra: bilinear and nearest resizing act on each channel alone and are means whose weights sum to 1, so that
``conv(resize(x)) = resize(conv(x))`` for a 1x1 convolution with stride 1, its bias included.
"""

from __future__ import annotations

import torch
from torch import fx

from deploykit.graph.channels import RESIZES, channels_of, positions_of
from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    aten,
    is_call,
    module_path,
    shape_of,
    sources,
    stand_for,
    with_rewrite,
)
from deploykit.graph.layers import CONVOLUTIONS, layer_weights, pads

NAME = "commute_resize"

CHEAPER = "it is cheaper as it is: {now} multiply-accumulates, {other} on the other side"
OTHER_READER = "the value between them has another reader"

# A bilinear resize weighs four values for each of its own; a nearest one copies.
_PER_BILINEAR_VALUE = 4


def commute_resize(graph: Graph) -> Graph:
    """Return ``graph`` with each 1x1 convolution on the cheaper side of the resize beside it."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Swap the pairs of ``module`` that are cheaper the other way round, in place; note them and the others."""
    for second in list(module.graph.nodes):
        first = second.args[0] if second.op == "call_function" and second.args else None
        if not isinstance(first, fx.Node) or not _is_pair(module, first, second):
            continue
        if len(first.users) > 1:
            recorder.skipped(module_path(second), OTHER_READER)
            continue
        resize, conv = (first, second) if is_call(first, *RESIZES) else (second, first)
        now, other = _cost(first, second, conv), _swapped_cost(first, second, conv)
        if other >= now:
            recorder.skipped(module_path(second), CHEAPER.format(now=now, other=other))
            continue
        made_from = tuple(dict.fromkeys((*sources(conv), *sources(resize))))
        recorder.fired(made_from, f"{other} multiply-accumulates instead of {now}")
        _swap(first, second, conv)


def _is_pair(module: fx.GraphModule, first: fx.Node, second: fx.Node) -> bool:
    for resize, conv in ((first, second), (second, first)):
        if is_call(resize, *RESIZES) and is_call(conv, *CONVOLUTIONS):
            read = layer_weights(module, conv)
            stride = argument(conv, 3, "stride", [1])
            return (
                read is not None
                and read[0].shape[2:] == (1, 1)
                and not pads(conv)
                and all(step == 1 for step in (stride if isinstance(stride, (list, tuple)) else [stride]))
            )
    return False


def _cost(first: fx.Node, second: fx.Node, conv: fx.Node) -> int:
    """Return the multiply-accumulates of the pair as it stands."""
    resize = second if conv is first else first
    return _macs(conv, positions_of(conv)) + _resizing(resize, channels_of(resize), positions_of(resize))


def _swapped_cost(first: fx.Node, second: fx.Node, conv: fx.Node) -> int:
    before = first.args[0]
    positions = positions_of(before) if conv is second else positions_of(second)
    resized = channels_of(conv) if conv is second else channels_of(before)
    return _macs(conv, positions) + _resizing(second if conv is first else first, resized, positions_of(second))


def _macs(conv: fx.Node, positions: int) -> int:
    shape = shape_of(argument(conv, 1, "weight"))
    assert shape is not None
    return torch.Size(shape).numel() * positions


def _resizing(resize: fx.Node, channels: int | None, positions: int) -> int:
    per_value = _PER_BILINEAR_VALUE if is_call(resize, aten.upsample_bilinear2d.vec) else 0
    return per_value * (channels or 0) * positions


def _swap(first: fx.Node, second: fx.Node, conv: fx.Node) -> None:
    """Let ``second`` come first, and ``first`` after it."""
    source = first.args[0]
    assert isinstance(source, fx.Node)
    value, before = second.meta["val"], shape_of(source)
    assert before is not None
    made_from = (*sources(first), *sources(second))
    readers = list(second.users)
    first.replace_all_uses_with(source, delete_user_cb=lambda user: user is second)
    second.append(first)
    for reader in readers:
        reader.replace_input_with(second, first)
    first.update_arg(0, second)
    sides = before[2:] if conv is second else tuple(value.shape[2:])
    second.meta["val"] = value.new_empty((value.shape[0], _channels_after(second, source), *sides))
    first.meta["val"] = value
    stand_for(first, second, made_from)
    stand_for(second, None, made_from)


def _channels_after(node: fx.Node, source: fx.Node) -> int:
    if is_call(node, *RESIZES):
        return channels_of(source) or 0
    shape = shape_of(argument(node, 1, "weight"))
    assert shape is not None
    return shape[0]
