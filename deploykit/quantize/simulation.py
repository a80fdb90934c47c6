"""The lowered graph with integers in it, in PyTorch: what each way to quantize costs, before any file is written.

Weights are rounded per output channel to 8 bits, activations to the 256 levels of their range. It serves to choose
(how strongly channels are equalized, which estimator, which layers to try in float first); what a file costs is
measured on the file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from deploykit.graph.capture import cast_graph
from deploykit.graph.graph import Graph, aten, constant, is_call, sources
from deploykit.graph.layers import CONVOLUTIONS, TRANSPOSED
from deploykit.graph.passes.correct_biases import rounded_to_8_bits
from deploykit.graph.walk import Compute, Walk, compute_plainly
from deploykit.quantize.estimators import LEVELS, Seen, estimate, see
from deploykit.targets.base import Array
from deploykit.targets.quantized import Range
from deploykit.vocab import Estimator

LAYERS = (*CONVOLUTIONS, *TRANSPOSED, aten.linear.default)
BEFORE = "(input)"


@dataclass(frozen=True)
class Channels:
    """What values were on calibration images, by node name: largest magnitude and mean of each channel, (C,)."""

    largest: dict[str, Tensor]
    means: dict[str, Tensor]


class Simulation:
    """A float32 copy of a graph, run with or without integers.

    ``everything`` quantizes each value, as full-integer runtimes do; else only what layers read and give.
    """

    def __init__(self, graph: Graph, *, everything: bool = False) -> None:
        self.module = cast_graph(graph, torch.float32).module
        self.everything = everything
        self._walk = Walk(self.module)
        self.layer_of: dict[str, str] = {}
        self._rounded: dict[str, Tensor] = {}
        for node in self.module.graph.nodes:
            if node.op != "call_function":
                continue
            if is_call(node, *LAYERS):
                self.layer_of[node.name] = sources(node)[-1]
                weight = constant(self.module, node.args[1])
                if weight is not None:
                    by_column = is_call(node, *TRANSPOSED)
                    self._rounded[node.name] = rounded_to_8_bits(weight, by_column=by_column)
            else:
                before = [self.layer_of[one.name] for one in node.all_input_nodes if one.name in self.layer_of]
                self.layer_of[node.name] = before[0] if before else BEFORE

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers, in order: modules with weights, each with what follows it up to the next."""
        return tuple(dict.fromkeys(self.layer_of.values()))

    def values(self, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return every floating-point value of one run, by node name, inputs of the graph among them."""
        named = zip(self._walk.placeholders, inputs, strict=True)
        found = {node.name: value for node, value in named if value.is_floating_point()}

        def compute(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
            value = compute_plainly(node, args, kwargs)
            if isinstance(value, Tensor) and value.is_floating_point():
                found[node.name] = value
            return value

        with torch.no_grad():
            self._walk.run(inputs, compute)
        return found

    def channels(self, images: Sequence[Sequence[Tensor]]) -> Channels:
        """Return the largest magnitude and the mean of each channel over ``images``."""
        largest: dict[str, Tensor] = {}
        means: dict[str, Tensor] = {}
        for inputs in images:
            for name, value in self.values(inputs).items():
                if value.dim() not in (2, 4):
                    continue
                axes = [axis for axis in range(value.dim()) if axis != 1]
                highest, mean = value.abs().amax(axes).double(), value.double().mean(axes) / len(images)
                largest[name] = torch.maximum(largest[name], highest) if name in largest else highest
                means[name] = means[name] + mean if name in means else mean
        return Channels(largest, means)

    def read_by_layers(self) -> frozenset[str]:
        """Return the names of the values that layers read or give."""
        found: set[str] = set()
        for node in self.module.graph.nodes:
            if is_call(node, *LAYERS):
                found |= {node.name, node.args[0].name}
        return frozenset(found)

    def seen(self, images: Sequence[Sequence[Tensor]]) -> dict[str, Seen]:
        """Return what each value that may be quantized was on ``images``."""
        names = None if self.everything else self.read_by_layers()

        def runs() -> Iterator[Mapping[str, Array]]:
            for inputs in images:
                yield {k: v.numpy() for k, v in self.values(inputs).items() if names is None or k in names}

        return see(runs)

    def outputs(
        self, inputs: Sequence[Tensor], ranges: Mapping[str, Range], layers: Collection[str]
    ) -> tuple[np.ndarray, ...]:
        """Return the outputs for ``inputs`` with ``layers`` in integers of ``ranges``."""
        with torch.no_grad():
            result = self._walk.run(inputs, self._computing(ranges, frozenset(layers)))
        return tuple(one.numpy() for one in result)

    def _computing(self, ranges: Mapping[str, Range], layers: frozenset[str]) -> Compute:
        """Return how values are computed with ``layers`` in integers of ``ranges``."""

        def compute(node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
            if self.layer_of[node.name] not in layers:
                return compute_plainly(node, args, kwargs)
            if is_call(node, *LAYERS):
                weight = self._rounded.get(node.name, args[1])
                given = _level(args[0], node.args[0], ranges)
                return _level(compute_plainly(node, (given, weight, *args[2:]), kwargs), node, ranges)
            value = compute_plainly(node, args, kwargs)
            return _level(value, node, ranges) if self.everything else value

        return compute

    def snr_db(
        self,
        images: Sequence[Sequence[Tensor]],
        ranges: Mapping[str, Range],
        layers: Collection[str] | None = None,
        expected: Sequence[Sequence[np.ndarray]] | None = None,
    ) -> float:
        """Return the mean SNR in dB, over images and outputs, of ``layers`` (all) in integers against none."""
        chosen = self.layers if layers is None else layers
        wanted = [self.outputs(inputs, {}, ()) for inputs in images] if expected is None else expected
        found = []
        for inputs, references in zip(images, wanted, strict=True):
            values = self.outputs(inputs, ranges, chosen)
            found += [_snr_db(value, reference) for value, reference in zip(values, references, strict=True)]
        return float(np.mean(found))

    def snr_db_alone(
        self,
        images: Sequence[Sequence[Tensor]],
        ranges: Mapping[str, Range],
        expected: Sequence[Sequence[np.ndarray]],
    ) -> dict[str, float]:
        """Return layer → what ``snr_db`` gives for it alone; what comes before it is computed once for an image."""
        nodes: dict[str, set[fx.Node]] = {layer: set() for layer in self.layers}
        for node in self.module.graph.nodes:
            if node.name in self.layer_of:
                nodes[self.layer_of[node.name]].add(node)
        found: dict[str, list[float]] = {layer: [] for layer in nodes}
        for inputs, references in zip(images, expected, strict=True):
            with torch.no_grad():
                begun = self._walk.begun(inputs)
                for layer, own in nodes.items():
                    values = self._walk.run_from(begun, own, self._computing(ranges, frozenset((layer,))))
                    pairs = zip(values, references, strict=True)
                    found[layer] += [_snr_db(value.numpy(), reference) for value, reference in pairs]
        return {layer: float(np.mean(each)) for layer, each in found.items()}


def ranges_of(seen: Mapping[str, Seen], estimator: Estimator) -> dict[str, Range]:
    """Return the range of each activation; of one that was not finite none."""
    finite = {k: v for k, v in seen.items() if np.isfinite(v.lowest).all() and np.isfinite(v.highest).all()}
    return {name: estimate(one, estimator) for name, one in finite.items()}


def _snr_db(value: np.ndarray, reference: np.ndarray) -> float:
    error = float(((value.astype(np.float64) - reference) ** 2).sum())
    signal = float((reference.astype(np.float64) ** 2).sum())
    return float(10 * np.log10(max(signal, 1e-30) / max(error, 1e-30)))


def _level(value: object, node: object, ranges: Mapping[str, Range]) -> object:
    """Return ``value`` on the levels of the range of ``node``."""
    known = ranges.get(node.name) if isinstance(node, fx.Node) else None
    if known is None or not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    scale = (known.highest - known.lowest) / (LEVELS - 1)
    if scale <= 0:
        return value
    zero = round(-known.lowest / scale)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero, 0, LEVELS - 1)
