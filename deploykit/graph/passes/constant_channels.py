"""Which channels of a value are the same number everywhere, borders included."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import BatchNormStats
from deploykit.graph.channels import BINARY, channels_of, concatenated, is_channelwise
from deploykit.graph.graph import argument, aten, constant, is_call
from deploykit.graph.layers import CONVOLUTIONS, groups_of, layer_weights, pads
from deploykit.graph.passes.fold_batch_norm import batch_norm_stats

# Nothing that float32 or float16 computes depends on a weight below this: both flush it or round it away.
NEGLIGIBLE = 1e-30


def constant_channels(module: fx.GraphModule) -> dict[fx.Node, Tensor]:
    """Return value (N, C, H, W) → float64 (C,): the number that a channel always is, NaN for channels that vary."""
    found: dict[fx.Node, Tensor] = {}
    for node in module.graph.nodes:
        count = channels_of(node)
        if node.op == "call_function" and count is not None:
            values = _values(module, node, found)
            found[node] = torch.full((count,), torch.nan, dtype=torch.float64) if values is None else values.double()
    return found


def _values(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Tensor]) -> Tensor | None:
    if is_call(node, *CONVOLUTIONS):
        return _convolved(module, node, found)
    joined = concatenated(node)
    if joined is not None:
        return torch.cat([_of(part, found) for part in joined])
    if not node.args or not isinstance(node.args[0], fx.Node):
        return None
    before = _of(node.args[0], found)
    if is_call(node, aten.prelu.default):
        slope = constant(module, node.args[1])
        return None if slope is None else torch.where(before > 0, before, slope.double().flatten() * before)
    if is_call(node, aten.batch_norm.default):
        stats = batch_norm_stats(module, node)
        if not isinstance(stats, BatchNormStats):
            return None
        scale, shift = stats.affine()
        gone = scale.abs() < NEGLIGIBLE
        return torch.where(gone, shift, scale * before + shift)
    if is_channelwise(node):
        return _through(node, before)
    if is_call(node, *BINARY):
        return _together(node, found)
    return None


def _of(node: object, found: dict[fx.Node, Tensor]) -> Tensor:
    assert isinstance(node, fx.Node)
    return found.get(node, torch.full((channels_of(node) or 1,), torch.nan, dtype=torch.float64))


def _convolved(module: fx.GraphModule, node: fx.Node, found: dict[fx.Node, Tensor]) -> Tensor | None:
    read = layer_weights(module, node)
    if read is None:
        return None
    weight, bias = read
    groups = groups_of(node)
    before = _of(node.args[0], found)
    zero = before == 0
    steady = zero if pads(node) else ~before.isnan()
    taken = weight.double().masked_fill(weight.abs() < NEGLIGIBLE, 0.0)
    by_group = taken.reshape(groups, -1, *taken.shape[1:])
    reads = by_group.abs().amax((3, 4)) > 0
    varies = (reads & ~steady.reshape(groups, 1, -1)).any(2).flatten()
    level = torch.where(steady, before, 0.0).reshape(groups, -1, 1)
    total = (by_group.sum((3, 4)) @ level).flatten() + (0.0 if bias is None else bias.double())
    return total.masked_fill(varies, torch.nan)


def _through(node: fx.Node, before: Tensor) -> Tensor | None:
    """Return what ``node``, which does the same with every channel by itself, makes of the numbers ``before``."""
    if is_call(node, aten.constant_pad_nd.default, aten.pad.default):
        is_pad = is_call(node, aten.pad.default)
        if is_pad and argument(node, 2, "mode", "constant") != "constant":
            return before
        border = argument(node, 3 if is_pad else 2, "value", 0) or 0.0
        assert isinstance(border, (int, float))
        return torch.where(before == border, before, torch.nan)
    if is_call(node, aten.avg_pool2d.default) and any(argument(node, 3, "padding", [0])):  # type: ignore[arg-type]
        return before.masked_fill(before != 0, torch.nan)
    if is_call(node, aten.upsample_bicubic2d.vec) or is_call(node, aten.avg_pool2d.default):
        return before if argument(node, 6, "divisor_override") is None else None
    if is_call(node, *_KEEP):
        return before
    assert callable(node.target)
    value = node.target(before.reshape(1, -1, 1, 1), *node.args[1:], **node.kwargs)
    if not isinstance(value, Tensor) or value.numel() != before.numel():
        return None
    # Not every kernel hands NaN on.
    return value.flatten().masked_fill(before.isnan(), torch.nan)


_KEEP = (
    aten.max_pool2d.default, aten.adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default, aten.mean.dim,
    aten.upsample_bilinear2d.vec, aten.upsample_nearest2d.vec,
)  # fmt: skip


def _together(node: fx.Node, found: dict[fx.Node, Tensor]) -> Tensor | None:
    one, other = (
        torch.tensor([arg], dtype=torch.float64) if isinstance(arg, (int, float)) else _of(arg, found)
        for arg in node.args[:2]
    )
    count = channels_of(node)
    if one.numel() not in (1, count) or other.numel() not in (1, count) or node.kwargs:
        return None
    assert callable(node.target)
    value = node.target(one, other, *node.args[2:])
    assert isinstance(value, Tensor)
    return value.expand(count or 0)
