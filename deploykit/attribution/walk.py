"""Evaluation of the lowered graph on the file's own values: each operation computes from what the file handed to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploykit.attribution.file import File, Fit
from deploykit.attribution.judge import UNIT_HALF, Judgement, judge
from deploykit.attribution.lowered import Lowered, Node, Values


@dataclass(frozen=True)
class Computed:
    """What a node computes: exactly, in float32, and in float32 from inputs that were not rounded to half.

    A runtime may hand an operation more bits than it shows: where it fuses the conversions between two operations in
    half precision, it shows the rounded value and reads the other. ``shaken`` is the same as ``rounded`` in a file
    without halves.
    """

    exact: Any
    rounded: Any
    shaken: Any


class Walk:
    """The values of the graph as the file has them, computed from the nearest matched ones where it has none.

    ``fits`` are the matches so far. A node without one keeps what the graph computes.
    """

    def __init__(self, lowered: Lowered, file: File, given: Values, fits: Mapping[str, Fit] | None = None) -> None:
        self.lowered = lowered
        self.file = file
        self.fits: dict[str, Fit] = dict(fits or {})
        self._nodes = {node.name: node for node in lowered.nodes}
        self._kept: dict[str, Computed] = {name: Computed(value, value, value) for name, value in given.items()}

    def compute(self, node: Node, replaced: Mapping[str, Computed] | None = None) -> Computed:
        """Return what ``node`` computes from the file's values; ``replaced`` holds what stands in for others.

        Neither float32 result is rounded to half yet: that depends on the value of the file that it is held against.
        """
        reads = {name: self._read(name, replaced or {}) for name in node.reads}
        exact = self.lowered.exactly(node.name, {name: value.exact for name, value in reads.items()})
        rounded = self.lowered.rounded(node.name, {name: value.rounded for name, value in reads.items()}, half=False)
        if all(value.shaken is value.rounded for value in reads.values()):
            return Computed(exact, rounded, rounded)
        shaken = self.lowered.rounded(node.name, {name: value.shaken for name, value in reads.items()}, half=False)
        return Computed(exact, rounded, shaken)

    def carried(self, node: Node, computed: Computed) -> Computed:
        """Return what later nodes read of ``computed`` where the file has no value for ``node``."""
        floating = isinstance(computed.rounded, Tensor) and computed.rounded.is_floating_point()
        if not (self.file.mostly_half and node.varies and floating):
            return computed
        return Computed(computed.exact, computed.rounded.half().float(), computed.shaken)

    def keep(self, node: Node, computed: Computed) -> None:
        """Keep what ``compute`` returned for a node without a match."""
        self._kept[node.name] = self.carried(node, computed)

    def known(self, name: str) -> bool:
        """Whether the value of a node or input can be read."""
        return name in self.fits or name in self._kept

    def forget(self, name: str) -> None:
        """Drop what was kept for a node, and its match."""
        self.fits.pop(name, None)
        self._kept.pop(name, None)

    def match(self, name: str, fit: Fit) -> None:
        """Let ``fit`` stand for the node ``name``."""
        self.forget(name)
        self.fits[name] = fit

    def given_by(self, name: str, fit: Fit) -> Computed:
        """Return the value of ``fit`` as later nodes read it in place of the node ``name``."""
        value = self._tensor(name, fit)
        if not self.file.is_half(fit.value):
            return Computed(value, value, value)
        generator = torch.Generator().manual_seed(value.numel())
        signs = torch.rand(value.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return Computed(value, value, value * (1 + UNIT_HALF * signs))

    def judged(self, name: str, fit: Fit, computed: Computed) -> Judgement:
        """Return whether rounding explains how far ``fit`` is from what the node computes."""
        half = self.file.is_half(fit.value)
        rounded = computed.rounded.half().float() if half else computed.rounded
        value, adding = self._tensor(name, fit), self._nodes[name].adding
        return judge(value, computed.exact, rounded, shaken=computed.shaken, half=half, adding=adding)

    def judgements(self) -> Iterator[tuple[Node, Judgement]]:
        """Yield the judgement on every matched node in order, computing all of them anew."""
        for node in self.lowered.nodes:
            computed = self.compute(node)
            if node.name in self.fits:
                yield node, self.judged(node.name, self.fits[node.name], computed)
            else:
                self.keep(node, computed)

    def _tensor(self, name: str, fit: Fit) -> Tensor:
        shape = self._nodes[name].shape
        assert shape is not None
        return self.file.tensor(fit, shape)

    def _read(self, name: str, replaced: Mapping[str, Computed]) -> Computed:
        if name in replaced:
            return replaced[name]
        return self.given_by(name, self.fits[name]) if name in self.fits else self._kept[name]
