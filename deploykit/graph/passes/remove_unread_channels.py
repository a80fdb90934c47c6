"""Channels that nothing depends on are removed: constant ones move into the next bias, unread ones go.

Algebra: where channel j of x is the number v everywhere, ``conv(x, W, b) = conv(x, W', b + v Σ W[:, j])`` with
``W'[:, j] = 0``, if the convolution does not pad or v is 0. A channel whose weights are zero in every reader is not
read; it need not be computed, nor what only it needs. Channels of one number belong together along everything that
acts on each channel alone, through sums and concatenations: they go together or not at all. A weight below 1e-30 counts
as zero: it only costs the arithmetic of subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, fx

from deploykit.graph.channels import BINARY, PER_CHANNEL, channels_of, concatenated, is_channelwise
from deploykit.graph.graph import Graph, Recorder, aten, constant, is_call, sources, with_rewrite
from deploykit.graph.layers import (
    CONVOLUTIONS,
    groups_of,
    is_depthwise,
    layer_weights,
    pads,
    replace_constant,
    replace_weights,
)
from deploykit.graph.passes.constant_channels import NEGLIGIBLE, constant_channels
from deploykit.graph.value_map import removed

NAME = "remove_unread_channels"


def remove_unread_channels(graph: Graph) -> Graph:
    """Return ``graph`` without the channels that no output depends on, and without weights below 1e-30."""
    return with_rewrite(graph, NAME, rewrite)


def rewrite(module: fx.GraphModule, recorder: Recorder) -> None:
    """Remove the channels of ``module`` in place; note them by layer."""
    _drop_negligible(module, recorder)
    _take_constants(module, recorder)
    kept = _Together(module).kept()
    for node, keep in kept.items():
        if not bool(keep.all()) or _reads_less(node, kept):
            _shrink(module, node, keep, kept, recorder)


def _reads_less(node: fx.Node, kept: dict[fx.Node, Tensor]) -> bool:
    given = node.args[0] if is_call(node, *CONVOLUTIONS) else None
    return isinstance(given, fx.Node) and given in kept and not bool(kept[given].all())


def _drop_negligible(module: fx.GraphModule, recorder: Recorder) -> None:
    """Set weights, biases, slopes, scales and shifts below ``NEGLIGIBLE`` to zero."""
    for node in list(module.graph.nodes):
        if is_call(node, *CONVOLUTIONS):
            places: tuple[int, ...] = (1, 2)
        elif is_call(node, aten.prelu.default):
            places = (1,)
        elif is_call(node, aten.batch_norm.default):
            places = (1, 2)
        else:
            continue
        for place in places:
            value = constant(module, node.args[place] if place < len(node.args) else None)
            tiny = None if value is None else (value != 0) & (value.abs() < NEGLIGIBLE)
            if value is not None and tiny is not None and bool(tiny.any()):
                replace_constant(module, node, place, value.masked_fill(tiny, 0.0))
                recorder.fired(sources(node), f"{int(tiny.sum())} weights below {NEGLIGIBLE:.0e} set to zero")


def _take_constants(module: fx.GraphModule, recorder: Recorder) -> None:
    """Move what constant channels contribute to dense convolutions into their biases."""
    known = constant_channels(module)
    for node in list(module.graph.nodes):
        read = layer_weights(module, node) if is_call(node, *CONVOLUTIONS) and groups_of(node) == 1 else None
        before = known.get(node.args[0]) if read is not None else None
        if read is None or before is None:
            continue
        weight, bias = read
        taken = ~before.isnan() & (weight.abs().amax((0, 2, 3)) > 0)
        if pads(node):
            taken &= before == 0
        if not bool(taken.any()):
            continue
        level = torch.where(taken, before, 0.0).to(weight.dtype)
        shift = weight.sum((2, 3)) @ level
        total = shift if bias is None else bias + shift
        kept = weight.masked_fill(taken[None, :, None, None], 0.0)
        replace_weights(module, node, kept, total if bool(total.any()) else None)
        recorder.fired(sources(node), f"{int(taken.sum())} constant channels moved into the bias")


class _Together:
    """Channels that must be kept or removed together: the connected parts of all channels of all values."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module = module
        self._start: dict[fx.Node, int] = {}
        total = 0
        for node in module.graph.nodes:
            count = channels_of(node)
            if node.op in ("call_function", "placeholder") and count is not None:
                self._start[node] = total
                total += count
        self._pairs: list[tuple[int, int, int]] = []
        self._read = np.zeros(total, dtype=bool)
        for node in module.graph.nodes:
            self._tie(node)

    def kept(self) -> dict[fx.Node, Tensor]:
        """Return value → which of its channels to keep; at least one is."""
        ones = [np.arange(at, at + count) for at, _, count in self._pairs]
        others = [np.arange(at, at + count) for _, at, count in self._pairs]
        edges = (np.concatenate([*ones, []]).astype(int), np.concatenate([*others, []]).astype(int))
        size = len(self._read)
        _, part = connected_components(coo_matrix((np.ones(len(edges[0])), edges), shape=(size, size)), directed=False)
        read = np.zeros(size, dtype=bool)
        read[part[self._read]] = True
        for node, start in self._start.items():
            own = part[start : start + (channels_of(node) or 0)]
            # A value without channels is nothing that a converter takes.
            if not read[own].any():
                read[own[0]] = True
        return {
            node: torch.from_numpy(read[part[start : start + (channels_of(node) or 0)]])
            for node, start in self._start.items()
        }

    def _join(self, one: fx.Node, at: int, other: fx.Node) -> None:
        """Tie every channel of ``other`` to those of ``one`` from number ``at`` on."""
        self._pairs.append((self._start[one] + at, self._start[other], channels_of(other) or 0))

    def _keep(self, node: object, channels: Tensor | None = None) -> None:
        if isinstance(node, fx.Node) and node in self._start:
            start, count = self._start[node], channels_of(node) or 0
            self._read[start : start + count] |= True if channels is None else channels.numpy()

    def _tie(self, node: fx.Node) -> None:
        """Say which channels of what ``node`` reads belong to which of its own, and which it needs in any case."""
        given = node.args[0] if node.args else None
        if node.op == "placeholder":
            self._keep(node)
        elif is_call(node, *CONVOLUTIONS) and (read := layer_weights(self._module, node)) is not None:
            self._tie_convolution(node, given, read[0])
        elif (joined := concatenated(node)) is not None:
            start = 0
            for part in joined:
                self._join(node, start, part)
                start += channels_of(part) or 0
        elif self._acts_alone(node):
            for operand in node.args[:2]:
                known = isinstance(operand, fx.Node) and operand in self._start
                if known and channels_of(operand) == channels_of(node):
                    assert isinstance(operand, fx.Node)
                    self._join(node, 0, operand)
                else:
                    self._keep(operand)
        else:
            self._keep(node)
            for operand in node.all_input_nodes:
                self._keep(operand)

    def _tie_convolution(self, node: fx.Node, given: object, weight: Tensor) -> None:
        if is_depthwise(node) and isinstance(given, fx.Node) and given in self._start:
            self._join(node, 0, given)
        elif groups_of(node) == 1:
            self._keep(given, weight.abs().amax((0, 2, 3)) > 0)
        else:
            self._keep(node)
            self._keep(given)

    def _acts_alone(self, node: fx.Node) -> bool:
        if node not in self._start:
            return False
        if node.target in PER_CHANNEL:
            return all(constant(self._module, x) is not None for x in _weights(node))
        if is_call(node, *BINARY):
            return all(not isinstance(x, fx.Node) or (x in self._start and x.op != "get_attr") for x in node.args[:2])
        return is_channelwise(node)


def _weights(node: fx.Node) -> Iterator[object]:
    for position in PER_CHANNEL[node.target]:  # type: ignore[index]
        if position < len(node.args) and node.args[position] is not None:
            yield node.args[position]


def _shrink(
    module: fx.GraphModule, node: fx.Node, keep: Tensor, kept: dict[fx.Node, Tensor], recorder: Recorder
) -> None:
    """Compute only the channels ``keep`` of ``node``; what it reads is shrunk on its own."""
    if is_call(node, *CONVOLUTIONS):
        read = layer_weights(module, node)
        assert read is not None
        weight, bias = read
        rows = weight[keep]
        # Its input may have been shrunk already: of grouped convolutions, only depthwise ones are.
        if groups_of(node) > 1:
            node.args = (*node.args[:6], int(keep.sum()))
        else:
            given = node.args[0]
            rows = rows[:, kept[given]] if isinstance(given, fx.Node) and given in kept else rows
        replace_weights(module, node, rows, None if bias is None else bias[keep])
        if not bool(keep.all()):
            recorder.fired(sources(node), f"{int((~keep).sum())} of {keep.numel()} channels removed")
    elif node.target in PER_CHANNEL:
        for position in PER_CHANNEL[node.target]:
            value = constant(module, node.args[position])
            if value is not None and value.numel() == keep.numel():
                replace_constant(module, node, position, value[keep])
    value = node.meta["val"]
    node.meta["val"] = value.new_empty((value.shape[0], int(keep.sum()), *value.shape[2:]))
    removed(node, keep)
