"""Read a border of one constant value per channel, written as zero padding and slice assignments."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, fx

from deploykit.graph.graph import argument, aten, computed_constant, is_call, shape_of


@dataclass(frozen=True)
class Frame:
    """``source`` (N, C, H, W) with a border of ``value`` (C,); ``before`` is its width at the top and left."""

    source: fx.Node
    before: tuple[int, int]
    value: Tensor


def read_frame(module: fx.GraphModule, node: fx.Node) -> Frame | None:
    """Return the frame that ``node`` adds, or None where it is not exactly that.

    Two forms are read: zero padding, and zero padding whose whole border is then overwritten with the same
    constant by slice assignments, which capture writes as ``slice``, ``copy`` and ``slice_scatter``. Source of
    the second form: Diverse Branch Block, where BatchNorm pads with its own response to zero.
    """
    scatters: list[fx.Node] = []
    while is_call(node, aten.slice_scatter.default):
        scatters.insert(0, node)
        base = node.args[0]
        assert isinstance(base, fx.Node)
        node = base
    padded = _zero_padding(node)
    if padded is None or not scatters:
        return padded
    if not _is_closed([node, *scatters]):
        return None
    return _overwritten(module, node, padded, scatters)


def _zero_padding(node: fx.Node) -> Frame | None:
    if not is_call(node, aten.pad.default, aten.constant_pad_nd.default):
        return None
    source, shape = node.args[0], shape_of(node.args[0])
    widths = argument(node, 1, "pad")
    if is_call(node, aten.pad.default):
        mode, value = argument(node, 2, "mode", "constant"), argument(node, 3, "value")
    else:
        mode, value = "constant", argument(node, 2, "value", 0)
    if mode != "constant" or (value is not None and value != 0) or shape is None or len(shape) != 4:
        return None
    if not isinstance(widths, (list, tuple)) or not all(isinstance(width, int) for width in widths):
        return None
    left, _, top, *rest = (*widths, 0, 0) if len(widths) == 2 else widths
    if min(widths) < 0 or any(rest[1:]) or len(widths) > 4:
        return None
    assert isinstance(source, fx.Node)
    return Frame(source, (top, left), torch.zeros(shape[1], dtype=torch.float64))


def _is_closed(chain: list[fx.Node]) -> bool:
    """Whether the values inside the chain of assignments are read by the chain alone."""
    for node, following in pairwise(chain):
        views = [reader for reader in node.users if reader is not following]
        if not all(is_call(view, aten.slice.Tensor) and _feeds_only(view, following) for view in views):
            return False
    return True


def _feeds_only(view: fx.Node, scatter: fx.Node) -> bool:
    return all(is_call(copy, aten.copy.default) and set(copy.users) == {scatter} for copy in view.users)


def _overwritten(module: fx.GraphModule, pad: fx.Node, padded: Frame, scatters: list[fx.Node]) -> Frame | None:
    shape, inner = shape_of(pad), shape_of(padded.source)
    assert shape is not None
    assert inner is not None
    covered = torch.zeros(shape[2:], dtype=torch.bool)
    value: Tensor | None = None
    for scatter in scatters:
        written = _channel_value(module, scatter.args[1], shape[1])
        region = _region(scatter, shape)
        if written is None or region is None or (value is not None and not torch.equal(written, value)):
            return None
        covered[region] = True
        value = written
    border = torch.ones_like(covered)
    top, left = padded.before
    border[top : top + inner[2], left : left + inner[3]] = False
    if value is None or not torch.equal(covered, border):
        return None
    return Frame(padded.source, padded.before, value)


def _region(scatter: fx.Node, shape: tuple[int, ...]) -> tuple[slice, slice] | None:
    dim = argument(scatter, 2, "dim", 0)
    start, end, step = (argument(scatter, 3 + i, name) for i, name in enumerate(("start", "end", "step")))
    if dim not in (2, 3) or step not in (None, 1):
        return None
    if not all(bound is None or isinstance(bound, int) for bound in (start, end)):
        return None
    return (slice(start, end), slice(None)) if dim == 2 else (slice(None), slice(start, end))


def _channel_value(module: fx.GraphModule, written: object, channels: int) -> Tensor | None:
    """Return the one value per channel, (channels,), of what is written, or None where it is something else."""
    if isinstance(written, fx.Node) and is_call(written, aten.copy.default):
        written = written.args[1]
    tensor = computed_constant(module, written)
    if tensor is None or tensor.dim() > 4:
        return None
    tensor = tensor.reshape((1,) * (4 - tensor.dim()) + tuple(tensor.shape))
    if tensor.shape[1] not in (1, channels):
        return None
    first = tensor[:1, :, :1, :1]
    return first.reshape(-1).expand(channels) if torch.equal(first.expand_as(tensor), tensor) else None
