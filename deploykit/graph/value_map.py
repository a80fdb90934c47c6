"""Which value of the captured graph a value of a rewritten graph stands for, up to permutation and affine map.

A node that has no note in ``meta["deploykit_map"]`` is that of its own name and note (``graph.stand_for``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from deploykit.graph.graph import VALUE_MAP


@dataclass(frozen=True)
class ValueMap:
    """``old[:, c] = scale[c] * new[:, order[c]] + shift[c]``: the captured value from the one that stands for it.

    ``order`` are integers (C,), ``scale`` and ``shift`` float64 (C,). None: identity. Channels of the captured
    value that were removed because nothing reads them, or only times 0, have order -1.
    """

    order: Tensor | None = None
    scale: Tensor | None = None
    shift: Tensor | None = None
    shape: tuple[int, ...] | None = None

    def old(self, new: Tensor) -> Tensor:
        """Return the captured value for ``new``, (N, C, H, W) or (N, C), in its ``shape``; removed channels are NaN."""
        value, along = new, (-1, *(1 for _ in new.shape[2:]))
        if self.order is not None:
            value = new[:, self.order.clamp_min(0)]
            value = value.clone()
            value[:, self.order < 0] = torch.nan
        if self.scale is not None:
            value = value * self.scale.reshape(along)
        if self.shift is not None:
            value = value + self.shift.reshape(along)
        return value if self.shape is None else value.reshape(self.shape)


def value_map(node: fx.Node) -> ValueMap:
    """Return how to compute the captured value from that of ``node``."""
    found = node.meta.get(VALUE_MAP)
    return found if isinstance(found, ValueMap) else ValueMap()


def reordered(node: fx.Node, order: Tensor) -> None:
    """Note that ``node`` now gives v' where it gave v, with ``v[c] = v'[order[c]]``."""
    known = value_map(node)
    joined = (
        order if known.order is None else torch.where(known.order < 0, known.order, order[known.order.clamp_min(0)])
    )
    node.meta[VALUE_MAP] = replace(known, order=joined)


def reshaped(node: fx.Node, shape: tuple[int, ...]) -> None:
    """Note that ``node`` now gives (N, C, 1, 1) where it gave the same values in ``shape``."""
    node.meta[VALUE_MAP] = replace(value_map(node), shape=shape)


def mapped(node: fx.Node, scale: Tensor, shift: Tensor) -> None:
    """Note that ``node`` now gives v' where it gave v, with ``v[c] = (v'[c] - shift[c]) / scale[c]``.

    Where ``scale`` is 0 the captured channel is lost, as if it had been removed.
    """
    if bool((scale == 0).any()):
        _lose(node, scale == 0)
        scale = scale.masked_fill(scale == 0, 1.0)
    known = value_map(node)
    if known.order is not None:
        scale, shift = scale[known.order.clamp_min(0)], shift[known.order.clamp_min(0)]
    inner = 1 / scale
    outer = 1.0 if known.scale is None else known.scale
    offset = 0.0 if known.shift is None else known.shift
    node.meta[VALUE_MAP] = replace(known, scale=outer * inner, shift=offset - outer * inner * shift)


def _lose(node: fx.Node, gone: Tensor) -> None:
    known = value_map(node)
    order = torch.arange(gone.numel()) if known.order is None else known.order
    lost = (order < 0) | gone[order.clamp_min(0)]
    node.meta[VALUE_MAP] = replace(known, order=order.masked_fill(lost, -1))


def removed(node: fx.Node, keep: Tensor) -> None:
    """Note that ``node`` now gives only the channels ``keep`` (C,), a mask over those that it gave."""
    places = torch.where(keep, keep.cumsum(0) - 1, -1)
    known = value_map(node)
    order = places if known.order is None else torch.where(known.order < 0, -1, places[known.order.clamp_min(0)])
    node.meta[VALUE_MAP] = replace(known, order=order)
