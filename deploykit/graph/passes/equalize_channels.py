"""Channels of one value get ranges alike, so that one scale for the whole value serves each of them.

Algebra, with a scale s > 0 for each channel: ``s · conv(x, W, b) = conv(x, s · W, s · b)`` (rows), ``conv(x, W) =
conv(s · x, W / s)`` (columns), and ``f(s · x) = s · f(x)`` for what is positively homogeneous: ReLU, PReLU, pooling,
resizing, zero padding, sums of values scaled alike. So a scale can stand on every value between the layers that make
a channel and those that read it. The sets of channels that must be scaled alike are found by union-find; where one of
them meets anything else (a sigmoid, an input, an output) its scale is 1.

A scale is the largest that widens no calibrated value: the smallest, over the values of a set, of the value's largest
magnitude by that of its channel. Cross-layer equalization after Nagel et al., Data-Free Quantization Through Weight
Equalization and Bias Correction, ICCV 2019, section 4.1, with calibrated ranges in place of weight ranges: weights
have a scale for each output channel anyhow, activations one for all channels. Channels that are always zero or
constant hold no range and keep their scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, fx

from deploykit.graph.algebra import BatchNormStats, scale_inputs, scale_outputs
from deploykit.graph.channels import RANK, RESIZES, concatenated
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
from deploykit.graph.layers import CONVOLUTIONS, TRANSPOSED, groups_of, layer_weights, replace_constant, replace_weights
from deploykit.graph.passes.fold_batch_norm import batch_norm_stats
from deploykit.graph.passes.linear_step import Affine
from deploykit.graph.passes.move_affine import insert_affine
from deploykit.graph.value_map import mapped

NAME = "equalize_channels"

# Beyond this a channel holds noise, and its columns would be all that is left of a row of weights.
LARGEST_SCALE = 2.0**8
_LAYERS = (*CONVOLUTIONS, *TRANSPOSED, aten.linear.default)
_HOMOGENEOUS = (
    aten.relu.default, aten.leaky_relu.default, aten.prelu.default, aten.max_pool2d.default, aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.adaptive_max_pool2d.default, *RESIZES, aten.abs.default, aten.neg.default,
    aten.clone.default, aten.dropout.default, aten.mean.dim,
)  # fmt: skip
_SUMS = (aten.add.Tensor, aten.sub.Tensor, aten.maximum.default, aten.minimum.default)
_RESHAPES = (aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.flatten.using_ints)
FIXED = "nothing after or before it takes a scale"


def equalize_channels(graph: Graph, largest: Mapping[str, Tensor], strength: float = 1.0) -> Graph:
    """Return ``graph`` with its channels scaled so that the values named in ``largest`` have channels of like range.

    ``largest`` is value (node name) → largest magnitude of each channel (C,) on calibration images; ``strength``
    between 0 and 1 is the exponent of the scales. Exact over the reals: the outputs stay what they were.
    """

    def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
        channels = _Channels(module)
        scales = channels.scales(largest, strength)
        for node in list(module.graph.nodes):
            _apply(module, node, channels, scales, recorder)

    return with_rewrite(graph, NAME, rewrite)


class _Channels:
    """The sets of channels, over all values, that must be scaled alike; set 0 is that of scale 1."""

    def __init__(self, module: fx.GraphModule) -> None:
        self.module = module
        self._parent = [0]
        self.of: dict[fx.Node, Tensor] = {}
        for node in module.graph.nodes:
            count = _count(node)
            if count is not None and node.op != "get_attr":
                self.of[node] = torch.arange(len(self._parent), len(self._parent) + count)
                self._parent.extend(range(len(self._parent), len(self._parent) + count))
        for node in module.graph.nodes:
            if node.op in ("placeholder", "output") or node not in self.of:
                self._fix(node, *node.all_input_nodes)
            elif node.op == "call_function":
                self._connect(node)

    def scales(self, largest: Mapping[str, Tensor], strength: float) -> Tensor:
        """Return the scale of every set, by the number of each of its members."""
        roots = torch.tensor([self._root(index) for index in range(len(self._parent))])
        room = torch.full((len(self._parent),), torch.inf, dtype=torch.float64)
        for node, members in self.of.items():
            found = largest.get(node.name)
            if found is None or found.numel() != members.numel() or not bool((found > 0).any()):
                continue
            ratio = torch.where(found > 0, found.max() / found.clamp_min(1e-300), torch.inf).double()
            room.scatter_reduce_(0, roots[members], ratio, "amin")
        room = torch.where(room.isinf(), 1.0, room).clamp(1.0, LARGEST_SCALE) ** strength
        room[self._root(0)] = 1.0
        return room[roots]

    def _connect(self, node: fx.Node) -> None:
        given = node.args[0] if node.args else None
        if is_call(node, *_LAYERS):
            if layer_weights(self.module, node) is None or len(shape_of(node) or ()) != len(shape_of(given) or ()):
                self._fix(node, *node.all_input_nodes)
            return
        if is_call(node, aten.batch_norm.default):
            if not isinstance(batch_norm_stats(self.module, node), BatchNormStats):
                self._fix(node, *node.all_input_nodes)
            return
        parts = concatenated(node)
        if parts is not None:
            self._join(self.of[node], torch.cat([self.of[part] for part in parts]))
        elif is_call(node, *_HOMOGENEOUS) and _keeps_channels(node):
            self._join(self.of[node], self.of[node.args[0]])  # type: ignore[index]
        elif is_call(node, *_SUMS):
            self._sum(node)
        elif is_call(node, aten.mul.Tensor):
            self._product(node)
        elif is_call(node, *_RESHAPES, aten.unsqueeze.default, aten.squeeze.dims) and _is_vector(node, given):
            self._join(self.of[node], self.of[given])  # type: ignore[index]
        else:
            self._fix(node, *node.all_input_nodes)

    def _sum(self, node: fx.Node) -> None:
        """Join what is added; a constant for each channel is scaled with them."""
        for operand in node.args[:2]:
            known = constant(self.module, operand)
            members = self.of.get(operand) if isinstance(operand, fx.Node) else None
            if members is not None and members.numel() == self.of[node].numel():
                self._join(self.of[node], members)
            elif known is None or not _per_channel(known, self.of[node].numel()) or node.kwargs:
                self._fix(node, *node.all_input_nodes)
                return

    def _product(self, node: fx.Node) -> None:
        """Let the result be scaled as the first full operand; the other one, a gate or a constant, keeps its own."""
        shape = shape_of(node)
        full = [one for one in node.args[:2] if isinstance(one, fx.Node) and shape_of(one) == shape and one in self.of]
        if not full:
            self._fix(node, *node.all_input_nodes)
            return
        self._join(self.of[node], self.of[full[0]])
        self._fix(*(one for one in node.all_input_nodes if one is not full[0] or full.count(one) > 1))

    def _fix(self, *nodes: fx.Node) -> None:
        for node in nodes:
            if node in self.of:
                self._join(self.of[node], torch.zeros_like(self.of[node]))

    def _join(self, ones: Tensor, others: Tensor) -> None:
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            self._parent[self._root(one)] = self._root(other)

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index


def _apply(module: fx.GraphModule, node: fx.Node, channels: _Channels, scales: Tensor, recorder: Recorder) -> None:
    """Give ``node`` the weights by which it takes scaled inputs and returns scaled values; note what it then gives."""
    if node._erased or node not in channels.of:
        return
    own = scales[channels.of[node]]
    given = node.args[0] if node.op == "call_function" and node.args else None
    before = scales[channels.of[given]] if isinstance(given, fx.Node) and given in channels.of else None
    if before is not None and is_call(node, *_LAYERS, aten.batch_norm.default):
        if bool((own == 1).all()) and bool((before == 1).all()):
            recorder.skipped(module_path(node), FIXED)
            return
        widest = float(torch.maximum(own.max(), before.max()))
        recorder.fired(sources(node), f"channels scaled by up to {widest:.3g}")
        if is_call(node, aten.batch_norm.default):
            members = channels.of[node]
            node = _scaled_affine(module, node, before, own)
            # What reads it next asks for its scales.
            channels.of[node] = members
        else:
            _scale_layer(module, node, before, own)
    elif is_call(node, *_SUMS):
        for position, operand in enumerate(node.args[:2]):
            known = constant(module, operand)
            if known is not None and not bool((own == 1).all()):
                replace_constant(module, node, position, known * _along(own, len(shape_of(node) or ())))
    if not bool((own == 1).all()):
        mapped(node, own, torch.zeros_like(own))


def _scale_layer(module: fx.GraphModule, node: fx.Node, before: Tensor, own: Tensor) -> None:
    read = layer_weights(module, node)
    assert read is not None
    weight, bias = read
    if is_call(node, *TRANSPOSED):
        groups = groups_of(node)
        blocks = (weight / _along(before, weight.dim(), 0)).reshape(groups, -1, *weight.shape[1:])
        weight = (blocks * own.reshape(groups, 1, -1, *(1 for _ in weight.shape[2:]))).reshape(weight.shape)
    elif is_call(node, aten.linear.default):
        weight = scale_outputs(weight / before, own)
    else:
        weight = scale_outputs(scale_inputs(weight, 1 / before, groups_of(node)), own)
    replace_weights(module, node, weight, None if bias is None else bias * own)


def _scaled_affine(module: fx.GraphModule, node: fx.Node, before: Tensor, own: Tensor) -> fx.Node:
    stats = batch_norm_stats(module, node)
    assert isinstance(stats, BatchNormStats)
    scale, shift = stats.affine()
    affine = Affine(scale * own / before, shift * own, 1)
    given = node.args[0]
    assert isinstance(given, fx.Node)
    call = insert_affine(module, given, affine, node)
    stand_for(call, node, sources(node))
    node.replace_all_uses_with(call)
    erase_unread(module, node)
    return call


def _count(node: fx.Node) -> int | None:
    """Return the channels of a value (N, C, H, W) or (N, C), None for any other."""
    shape = shape_of(node)
    return shape[1] if shape is not None and len(shape) in (2, 4) else None


def _keeps_channels(node: fx.Node) -> bool:
    given = node.args[0]
    if _count(node) != (_count(given) if isinstance(given, fx.Node) else None):
        return False
    if is_call(node, aten.mean.dim):
        axes = argument(node, 1, "dim")
        return isinstance(axes, (list, tuple)) and {int(axis) % RANK for axis in axes} <= {2, 3}
    return len(shape_of(node) or ()) == len(shape_of(given) or ())


def _is_vector(node: fx.Node, given: object) -> bool:
    """Whether ``node`` only adds or drops axes of length 1 behind the channels of ``given``."""
    before, after = shape_of(given), shape_of(node)
    if before is None or after is None or {len(before), len(after)} - {2, 4}:
        return False
    return before[:2] == after[:2] and set(before[2:]) | set(after[2:]) <= {1}


def _per_channel(value: Tensor, count: int) -> bool:
    """Whether the constant ``value`` (1, C, 1, 1), (C, 1, 1) or of one number for all has a number for each channel."""
    shape = [1] * (4 - value.dim()) + list(value.shape)
    return value.dim() <= 4 and shape[0] == 1 and shape[1] in (1, count) and shape[2:] == [1, 1]


def _along(values: Tensor, rank: int, axis: int = 1) -> Tensor:
    return values.reshape([-1 if place == axis else 1 for place in range(rank)])
