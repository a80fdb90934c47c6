"""What half precision cannot hold: a sweep over the values of the lowered graph on images, before anything is written.

Overflow: a value whose largest magnitude, with ``MARGIN``, exceeds 65504; a weight that does; a sum inside a mean, a
pooling or a norm whose accumulator does, although its result fits.
Underflow: a channel, of a value or of a weight, whose largest magnitude is below 2^-14, the smallest normal half: its
values keep fewer bits than the 11 of any other, down to none. Dead channels are such ones in sound networks. So it
counts only where what these values lose changes an output by more than 11 bits everywhere, with exponents without
end, change it.

What is found stays in float32, and with a value all that reads it: a cast on the way would lose it as well.
"""

from __future__ import annotations

import math
import operator
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, aten, constant, is_call, sources
from deploykit.graph.passes.build_in_preprocessing import LARGEST_HALF, SMALLEST_NORMAL_HALF
from deploykit.quantize.calibration import FEWEST, CalibrationSet, calibration_set
from deploykit.quantize.file import float_plan
from deploykit.quantize.simulation import Simulation
from deploykit.recipe import Recipe
from deploykit.records import ExportPlan
from deploykit.verify.graph_inputs import graph_inputs
from deploykit.vocab import Precision, Target

Rounded = Callable[[Tensor], Tensor]

# Other images reach further than these: a value may double before it overflows.
MARGIN = 2.0
# The error of one rounding to half precision, relative: below it a loss is not told from half precision itself.
ROUNDING = 2.0**-11
# Targets that store weights in half precision and compute in float32.
STORED_ONLY = (Target.TFLITE,)
# Simulating the loss costs runs of PyTorch; so many images tell whether it matters.
MOST_ROUNDED = 2
_FULL = f"half precision has 11 bits from {SMALLEST_NORMAL_HALF:.2g} on"
_SUMS = (
    aten.mean.dim, aten.mean.default, aten.sum.dim_IntList, aten.sum.default,
    aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
)  # fmt: skip
_NORMS = (aten.var.correction, aten.var.dim, aten.std.correction, aten.std.dim, aten.linalg_vector_norm.default)


@dataclass(frozen=True)
class HalfRange:
    """What of a graph stays in float32: names of its nodes, and for people why.

    ``values`` are for targets that compute in half precision; ``weights``, among them, read weights that half
    precision does not hold, which is all that matters where it is only stored.
    """

    values: frozenset[str] = frozenset()
    weights: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()
    weight_notes: tuple[str, ...] = ()

    def stored(self) -> HalfRange:
        """Return what is left of it in a file that only stores its weights in half precision."""
        return HalfRange(self.weights, self.weights, self.weight_notes, self.weight_notes)


@dataclass
class _Seen:
    """The largest magnitudes on images, by node: of the whole value, per channel, and inside its accumulator."""

    whole: dict[str, float] = field(default_factory=dict)
    channels: dict[str, Tensor] = field(default_factory=dict)
    inside: dict[str, float] = field(default_factory=dict)


def sweep(graph: Graph, images: Sequence[Sequence[Tensor]]) -> HalfRange:
    """Return what of the float32 ``graph`` half precision cannot hold on ``images``, each the inputs of one run."""
    simulation = Simulation(graph)
    module = simulation.module
    seen = _Seen()
    for inputs in images:
        _see(module, simulation.values(inputs), seen)
    weights = {node: found for node in module.graph.nodes if (found := _weights(module, node))}
    values: dict[str, str] = {}
    stored: dict[str, str] = {}
    for node in module.graph.nodes:
        whole, inside = seen.whole.get(node.name, 0.0), seen.inside.get(node.name, 0.0)
        if not whole * MARGIN <= LARGEST_HALF:
            values[node.name] = _said(node, f"values up to {whole:.3g}, and half precision ends at {LARGEST_HALF:g}")
        elif not inside * MARGIN <= LARGEST_HALF:
            values[node.name] = _said(node, f"a sum of up to {inside:.3g}, and half precision ends at {LARGEST_HALF:g}")
        largest = max((float(one.abs().max()) for one in weights.get(node, ())), default=0.0)
        if not largest <= LARGEST_HALF:
            stored[node.name] = _said(node, f"weights up to {largest:.3g}, and half precision ends at {LARGEST_HALF:g}")
    small = {name for name, one in seen.channels.items() if name not in values and _vanishes(one)}
    light = {
        node.name for node, found in weights.items() if node.name not in stored and any(map(_weight_vanishes, found))
    }
    rounding = _Rounding(simulation, images[:MOST_ROUNDED])
    small, light = rounding.that_matter(small, light)
    for node in module.graph.nodes:
        if node.name in small:
            values[node.name] = _said(node, f"values of {_extent(seen.channels[node.name])}: {_FULL}")
        if node.name in light:
            amounts = torch.cat([_per_channel(one) for one in weights[node]])
            stored[node.name] = _said(node, f"weights of {_extent(amounts)}: {_FULL}")
    return HalfRange(
        values=_with_readers(module.graph, values) | stored.keys(),
        weights=frozenset(stored),
        notes=tuple(stored[name] for name in stored) + tuple(values.values()),
        weight_notes=tuple(stored.values()),
    )


def kept_in_float32(
    graph: Graph, plan: ExportPlan, recipe: Recipe, calibration: CalibrationSet | None, say: Callable[[str], None]
) -> HalfRange:
    """Return what of the lowered ``graph`` of ``plan`` stays in float32: nothing unless its file is in half precision.

    Without ``calibration`` images, synthetic portraits are swept.
    """
    if float_plan(plan).precision is not Precision.FP16:
        return HalfRange()
    say(f"{plan.target}: looking for what half precision cannot hold")
    chosen = calibration or calibration_set(recipe, count=FEWEST)
    images = (*chosen.judge, *chosen.ranges)[:FEWEST]
    found = sweep(graph, [graph_inputs(graph, recipe, one, torch.float32) for one in images])
    return found.stored() if plan.target in STORED_ONLY else found


def _said(node: fx.Node, why: str) -> str:
    return f"{', '.join(sources(node))} ({node.name}) stays in float32: {why}"


def _extent(largest: Tensor) -> str:
    low = largest[(largest > 0) & (largest < SMALLEST_NORMAL_HALF)]
    share = "" if len(low) == len(largest) else f" in {len(low)} of {len(largest)} channels"
    return f"at most {float(low.max()):.3g}{share}"


def _see(module: fx.GraphModule, values: Mapping[str, Tensor], seen: _Seen) -> None:
    for node in module.graph.nodes:
        value = values.get(node.name)
        if value is None or value.numel() == 0:
            continue
        largest = _per_channel(value, axis=1)
        before = seen.channels.get(node.name)
        seen.channels[node.name] = largest if before is None else torch.maximum(before, largest)
        seen.whole[node.name] = float(seen.channels[node.name].max())
        given = values.get(node.args[0].name) if node.args and isinstance(node.args[0], fx.Node) else None
        if given is not None and value.numel():
            seen.inside[node.name] = max(seen.inside.get(node.name, 0.0), _accumulated(node, given, value))


def _accumulated(node: fx.Node, given: Tensor, value: Tensor) -> float:
    """Return what the accumulator of ``node`` reaches: the sum before it is divided, or of squares before a root."""
    count = given.numel() / value.numel()
    if is_call(node, *_SUMS):
        return float(value.abs().max()) * (1 if is_call(node, aten.sum.dim_IntList, aten.sum.default) else count)
    if is_call(node, aten.linalg_vector_norm.default, aten.std.correction, aten.std.dim):
        return float(value.square().max()) * count
    return float(value.abs().max()) * count if is_call(node, *_NORMS) else 0.0


def _per_channel(value: Tensor, axis: int = 0) -> Tensor:
    """Return the largest magnitude along ``axis`` of ``value``; the whole is one channel where it has no such axis."""
    magnitude = value.detach().abs()
    if magnitude.dim() <= axis or magnitude.dim() < 2:
        return magnitude.max().reshape(1)
    return magnitude.amax([other for other in range(magnitude.dim()) if other != axis])


def _vanishes(largest: Tensor) -> bool:
    return bool(((largest > 0) & (largest < SMALLEST_NORMAL_HALF)).any())


def _weight_vanishes(weight: Tensor) -> bool:
    return _vanishes(_per_channel(weight))


def _weights(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, ...]:
    """Return the floating-point weights that ``node`` reads."""
    if node.op != "call_function":
        return ()
    found = [constant(module, one) for one in node.all_input_nodes if one.op == "get_attr"]
    return tuple(one for one in found if one is not None and one.is_floating_point() and one.numel())


def _with_readers(graph: fx.Graph, names: Collection[str]) -> frozenset[str]:
    """Return ``names`` with what reads them, and with the operation whose one result is taken by name."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.name not in names:
            continue
        pending = [node, *node.users, *(node.all_input_nodes if node.target is operator.getitem else ())]
        found |= {one.name for one in pending if one.op == "call_function"}
    return frozenset(found)


class _Rounding:
    """Runs of a graph with some values and weights rounded to half precision, beside its own outputs."""

    def __init__(self, simulation: Simulation, images: Sequence[Sequence[Tensor]]) -> None:
        self._module, self._images = simulation.module, images
        self._own: list[tuple[Tensor, ...]] | None = None
        self._allowed: list[list[float]] = []

    def that_matter(self, values: set[str], weights: set[str]) -> tuple[set[str], set[str]]:
        """Return the fewest of both, the costliest alone first, without which the others lose no more than 11 bits."""
        if not (values or weights) or self._loss(values, weights) <= 1:
            return set(), set()
        alone = [(self._loss({one}, set()), one, True) for one in sorted(values)]
        alone += [(self._loss(set(), {one}), one, False) for one in sorted(weights)]
        alone.sort(key=lambda row: -row[0])

        def chosen(rows: Sequence[tuple[float, str, bool]]) -> tuple[set[str], set[str]]:
            return {one for _, one, is_value in rows if is_value}, {one for _, one, is_value in rows if not is_value}

        fewest = bisect_left(range(1, len(alone)), True, key=lambda count: self._loss(*chosen(alone[count:])) <= 1) + 1
        return chosen(alone[:fewest])

    def _loss(self, values: set[str], weights: set[str]) -> float:
        """Return by how many times what 11 bits everywhere change an output these, in half precision, change it."""
        if self._own is None:
            every = {node.name for node in self._module.graph.nodes}
            self._own = [self._run(inputs, set(), set()) for inputs in self._images]
            bits = [self._run(inputs, every, every, _eleven_bits) for inputs in self._images]
            self._allowed = [
                [max(_distance(a, b), ROUNDING * _norm(b)) for a, b in zip(*pair, strict=True)]
                for pair in zip(bits, self._own, strict=True)
            ]
        worst = 0.0
        for inputs, own, allowed in zip(self._images, self._own, self._allowed, strict=True):
            for found, expected, limit in zip(self._run(inputs, values, weights), own, allowed, strict=True):
                error = _distance(found, expected)
                worst = max(worst, 0.0 if error == 0 else error / limit if limit else math.inf)
        return worst

    def _run(
        self, inputs: Sequence[Tensor], values: set[str], weights: set[str], rounded: Rounded | None = None
    ) -> tuple[Tensor, ...]:
        with torch.no_grad():
            result = _Halving(self._module, values, weights, rounded or _half).run(*inputs)
        return tuple(result)


def _half(value: Tensor) -> Tensor:
    return value.half().float()


def _eleven_bits(value: Tensor) -> Tensor:
    """Return ``value`` rounded as half precision rounds what is neither too large nor too small for it."""
    mantissa, exponent = torch.frexp(value)
    return torch.ldexp(torch.round(mantissa * 2**11) / 2**11, exponent)


def _norm(value: Tensor) -> float:
    return float(value.double().norm())


def _distance(found: Tensor, expected: Tensor) -> float:
    """Return the L2 distance of two outputs, infinite where it is no number."""
    distance = _norm(found.double() - expected.double())
    return math.inf if math.isnan(distance) else distance


class _Halving(fx.Interpreter):
    def __init__(self, module: fx.GraphModule, values: set[str], weights: set[str], rounded: Rounded) -> None:
        super().__init__(module)
        self._values, self._weights, self._rounded = values, weights, rounded

    def run_node(self, n: fx.Node) -> object:
        if n.op == "call_function" and n.name in self._weights:
            args, kwargs = fx.node.map_arg((n.args, n.kwargs), self._halved)
            assert callable(n.target)
            value = n.target(*args, **kwargs)
        else:
            value = super().run_node(n)
        chosen = n.op == "call_function" and n.name in self._values
        return self._rounded(value) if chosen and isinstance(value, Tensor) and value.is_floating_point() else value

    def _halved(self, source: fx.Node) -> Any:
        value = self.env[source]
        is_weight = source.op == "get_attr" and isinstance(value, Tensor) and value.is_floating_point()
        return self._rounded(value) if is_weight else value
