"""Fold BatchNorm into the convolution or linear layer before it (RCRNet, equations 2 to 4).

Algebra, per output channel, with ``s = gamma / sqrt(var + eps)``:
``gamma * (conv(x, W) + b - mean) / sqrt(var + eps) + beta = conv(x, s * W) + s * (b - mean) + beta``.
Groups, dilation, stride and padding do not matter, since BatchNorm comes after the sum; a transposed convolution is
the same with its output channels on axis 1 of each group. BatchNorm *before* a zero-padded convolution is another
matter, and stays.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, fx

from deploykit.graph import algebra
from deploykit.graph.graph import (
    Graph,
    Recorder,
    argument,
    aten,
    constant,
    erase_unread,
    is_call,
    module_path,
    shape_of,
    sources,
    stand_for,
    with_rewrite,
)
from deploykit.graph.layers import layer_weights, replace_weights
from deploykit.graph.passes.remove_no_ops import unchanged

NAME = "fold_batch_norm"

BATCH_STATISTICS = "it was captured with the statistics of the batch"
NO_CONVOLUTION = "no convolution before it: it follows {before}"
OTHER_READER = "the convolution before it has another reader"
COMPUTED_WEIGHT = "the weight of the convolution before it is computed, not constant"
COMPUTED_STATISTICS = "its own statistics are computed, not constant"
OTHER_AXIS = "the layer before it has its channels on another axis than the one that BatchNorm normalises"

_CONVOLUTIONS = (
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.conv3d.default,
    aten.conv3d.padding,
)
_TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
_LAYERS = (*_CONVOLUTIONS, *_TRANSPOSED, aten.convolution.default, aten.linear.default)
_BATCH_STATISTICS = (
    aten._native_batch_norm_legit.default,
    aten._native_batch_norm_legit.no_stats,
    aten.native_batch_norm.default,
)


def fold_batch_norm(graph: Graph) -> Graph:
    """Return ``graph`` with each BatchNorm that follows a layer of constant weight folded into that layer.

    Convolutions of any rank (dense, grouped, depthwise, dilated, strided), transposed ones (also grouped) and
    linear layers with two-dimensional input. A weight shared by several calls is copied per call. Every other
    BatchNorm stays, with the reason.
    """
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Fold the BatchNorms of ``module`` in place; note each fold and each reason against one."""
    for node in list(module.graph.nodes):
        if is_call(node, *_BATCH_STATISTICS):
            recorder.skipped(module_path(node), BATCH_STATISTICS)
        elif is_call(node, aten.batch_norm.default):
            match = _match(module, node)
            if isinstance(match, str):
                recorder.skipped(module_path(node), match)
            else:
                made_from = (*sources(match.layer), *sources(node))
                recorder.fired(made_from, f"BatchNorm folded into {match.layer.target}")
                _fold(module, node, match)
                stand_for(match.layer, node, made_from)
                erase_unread(module, node)


@dataclass(frozen=True)
class _Match:
    layer: fx.Node
    weight: Tensor
    bias: Tensor | None
    stats: algebra.BatchNormStats


def batch_norm_stats(module: fx.GraphModule, node: fx.Node) -> algebra.BatchNormStats | str:
    """Return the statistics of the ``aten.batch_norm`` call ``node``, or why it has no constant ones."""
    if argument(node, 5, "training") is not False:
        return BATCH_STATISTICS
    given = [argument(node, position, name) for position, name in enumerate(("weight", "bias"), start=1)]
    gamma, beta = (constant(module, value) for value in given)
    mean = constant(module, argument(node, 3, "running_mean"))
    var = constant(module, argument(node, 4, "running_var"))
    eps = argument(node, 7, "eps")
    absent = [read is None and value is not None for value, read in zip(given, (gamma, beta), strict=True)]
    if mean is None or var is None or any(absent) or not isinstance(eps, float):
        return COMPUTED_STATISTICS
    return algebra.BatchNormStats(gamma, beta, mean, var, eps)


def _match(module: fx.GraphModule, node: fx.Node) -> _Match | str:
    stats = batch_norm_stats(module, node)
    if isinstance(stats, str):
        return stats
    layer = node.args[0]
    assert isinstance(layer, fx.Node)
    shared = len(layer.users) > 1
    while (source := unchanged(layer)) is not None:
        layer = source
        shared = shared or len(layer.users) > 1
    if not is_call(layer, *_LAYERS):
        return NO_CONVOLUTION.format(before=layer.target if layer.op == "call_function" else "an input")
    if shared:
        return OTHER_READER
    read = layer_weights(module, layer)
    if read is None:
        return COMPUTED_WEIGHT
    weight, bias = read
    shape = shape_of(layer)
    if shape is None or len(shape) != weight.dim():
        return OTHER_AXIS
    return _Match(layer, weight, bias, stats)


def _fold(module: fx.GraphModule, node: fx.Node, match: _Match) -> None:
    layer, stats = match.layer, match.stats
    groups = _transposed_groups(layer)
    if groups is not None:
        folded = algebra.fold_transposed_batch_norm(match.weight, match.bias, stats, groups)
    elif is_call(layer, aten.linear.default):
        folded = algebra.fold_linear_batch_norm(match.weight, match.bias, stats)
    else:
        folded = algebra.fold_conv_batch_norm(match.weight, match.bias, stats)
    replace_weights(module, layer, *folded)
    node.replace_all_uses_with(layer)


def _transposed_groups(layer: fx.Node) -> int | None:
    """Return the groups of a transposed convolution, or None for any other layer."""
    if is_call(layer, aten.convolution.default) and argument(layer, 6, "transposed"):
        groups = argument(layer, 8, "groups", 1)
    elif is_call(layer, *_TRANSPOSED):
        groups = argument(layer, 6, "groups", 1)
    else:
        return None
    assert isinstance(groups, int)
    return groups
