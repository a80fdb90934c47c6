"""The lowered graph, evaluated node by node: exactly in float64, and as the file rounds it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, fx

from deploykit.graph.capture import cast_graph
from deploykit.graph.graph import Graph, constant, shape_of, sources
from deploykit.recipe import Recipe
from deploykit.verify.samples import Sample
from deploykit.vocab import Precision

Values: TypeAlias = dict[str, Any]

_WEIGHTED = ("conv1d", "conv2d", "conv3d", "conv_transpose2d", "linear")
_REDUCING = ("mean", "sum", "adaptive_avg_pool2d", "avg_pool2d")
_PRODUCTS = ("matmul", "mm", "bmm")


@dataclass(frozen=True)
class Node:
    """One operation of the lowered graph. ``reads`` names the operations and inputs of the graph that it needs.

    ``varies`` is false for what depends on no input: a converter is free to compute it once. ``shape`` is None where
    the result is not one floating tensor. ``adding`` is how many units in the last place the order of a sum may cost.
    """

    name: str
    operation: str
    modules: tuple[str, ...]
    reads: tuple[str, ...]
    shape: tuple[int, ...] | None
    varies: bool
    has_weights: bool
    adding: float


class Lowered:
    """The exact lowered graph (float64) and the same graph as the precision of a file rounds it."""

    def __init__(self, exact: Graph, precision: Precision) -> None:
        self.graph = exact
        self._half = precision is Precision.FP16
        self._exact = exact.module
        self._single = cast_graph(exact, torch.float32).module
        self._pairs = dict(zip(_calls(self._exact), _calls(self._single), strict=True))
        self._by_name = {node.name: node for node in self._pairs}
        self.inputs = tuple(node.name for node in self._exact.graph.nodes if node.op == "placeholder")
        self.nodes = _described(self._exact, self.inputs)
        output = next(node for node in self._exact.graph.nodes if node.op == "output")
        self.outputs = {name: node.name for name, node in zip(exact.outputs, output.args[0], strict=True)}

    def given(self, sample: Sample, recipe: Recipe) -> Values:
        """Return the inputs of the graph for ``sample``: pixels where the preprocessing is in the file."""
        found: Values = {}
        images = {item.name for item in recipe.file.inputs if item.kind == "image"}
        float_pixels = {"float32", "uint8"} if self._takes_pixels() else {"uint8"}
        for name, spec in zip(self.inputs, self.graph.inputs, strict=True):
            if spec.name in images and spec.dtype in float_pixels:
                pixels = torch.from_numpy(np.ascontiguousarray(sample.pixels[spec.name].transpose(2, 0, 1)[None]))
                found[name] = pixels if spec.dtype == "uint8" else pixels.double()
            else:
                found[name] = torch.from_numpy(sample.tensors[spec.name]).double()
        return found

    def _takes_pixels(self) -> bool:
        return any(report.name == "build_in_preprocessing" for report in self.graph.reports)

    def exactly(self, name: str, values: Mapping[str, Any]) -> Any:
        """Return what the node ``name`` computes in float64 from ``values``, by name of node or input."""
        node = self._by_name[name]
        return _evaluate(node, lambda source: _weight(self._exact, source, values), torch.float64)

    def rounded(self, name: str, values: Mapping[str, Any], half: bool) -> Any:
        """Return what the node computes in float32 with the weights of the file; with ``half``, rounded to float16.

        The weights of an fp16 file are halves. The result is float32 in any case.
        """
        node = self._pairs[self._by_name[name]]

        def read(source: fx.Node) -> Any:
            value = _weight(self._single, source, values)
            if source.op == "get_attr" and self._half and isinstance(value, Tensor) and value.is_floating_point():
                return value.half().float()
            return value

        result = _evaluate(node, read, torch.float32)
        return result.half().float() if half and isinstance(result, Tensor) and result.is_floating_point() else result


def _evaluate(node: fx.Node, read: Callable[[fx.Node], Any], dtype: torch.dtype) -> Any:
    def cast(source: fx.Node) -> Any:
        value = read(source)
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    args, kwargs = fx.node.map_arg((node.args, node.kwargs), cast)
    assert callable(node.target)
    with torch.no_grad():
        return node.target(*args, **kwargs)


def _weight(module: fx.GraphModule, source: fx.Node, values: Mapping[str, Any]) -> Any:
    return constant(module, source) if source.op == "get_attr" else values[source.name]


def _calls(module: fx.GraphModule) -> list[fx.Node]:
    return [node for node in module.graph.nodes if node.op == "call_function"]


def _operation(target: object) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target).removeprefix("aten.").partition(".")[0]
    return str(getattr(target, "__name__", target))


def _adding(node: fx.Node) -> float:
    """Return how many units in the last place a sum loses by being added one after the other, see ``judge``."""
    name, shapes = _operation(node.target), [shape_of(source) for source in node.all_input_nodes]
    given, result = (shapes[0] if shapes else None), shape_of(node)
    if not given or not result:
        return 0.0
    if name in _WEIGHTED and len(shapes) > 1 and shapes[1]:
        return math.sqrt(math.prod(shapes[1][1:]))
    if name in _REDUCING:
        return math.prod(given) / math.prod(result)
    return math.sqrt(given[-1]) if name in _PRODUCTS else 0.0


def _described(module: fx.GraphModule, inputs: Sequence[str]) -> tuple[Node, ...]:
    varying = set(inputs)
    found = []
    for node in _calls(module):
        reads = tuple(source.name for source in node.all_input_nodes if source.op != "get_attr")
        varies = not varying.isdisjoint(reads)
        if varies:
            varying.add(node.name)
        value = node.meta.get("val")
        floating = isinstance(value, Tensor) and value.is_floating_point()
        found.append(
            Node(
                name=node.name,
                operation=_operation(node.target),
                modules=sources(node),
                reads=reads,
                shape=tuple(value.shape) if isinstance(value, Tensor) and floating else None,
                varies=varies,
                has_weights=any(source.op == "get_attr" for source in node.all_input_nodes),
                adding=_adding(node),
            )
        )
    return tuple(found)
