"""A graph in half precision, except where it computes the places that are read.

The converter has no precision of its own: it writes the dtypes of the graph. So weights and the values between
operations become float16 here, the inputs and outputs stay as they are. A number that is turned into an index stays in
float32, with the arithmetic before it and the distances to it: a coordinate between -1 and 1 has a step of 2^-11 in
half precision, up to 1/64 of a pixel in 64 columns, and a position beyond 2048 has none between whole pixels.
"""

from __future__ import annotations

import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn

from deploykit.graph.graph import Graph, aten, constant

# What may stand between a flow and an index; a convolution is the flow's, and rounds as any other.
_ARITHMETIC = frozenset({
    aten.add, aten.sub, aten.rsub, aten.mul, aten.div, aten.neg, aten.clamp, aten.clamp_min, aten.clamp_max,
    aten.floor, aten.ceil, aten.round, aten.minimum, aten.maximum, aten.reshape, aten.view, aten.permute,
    aten.transpose, aten.slice, aten.select, aten.unsqueeze, aten.squeeze, aten.expand, aten.cat, aten.stack,
})  # fmt: skip
_TO_DTYPE = frozenset({aten.to, aten._to_copy})


def half_precision(graph: Graph, float32_values: Collection[str] = ()) -> Graph:
    """Return ``graph`` with float16 weights and arithmetic; float32 goes in and comes out.

    Its coordinates, and the nodes ``float32_values``, stay in float32.
    """
    copied = graph.copy()
    named = {node for node in copied.module.graph.nodes if node.op == "call_function" and node.name in float32_values}
    kept = float32_nodes(copied.module.graph) | named
    rounding = _Rounding(copied.module, kept)
    for node in list(copied.module.graph.nodes):
        rounding.visit(node)
    copied.module.recompile()
    return copied


def float32_nodes(graph: fx.Graph) -> frozenset[fx.Node]:
    """Return the nodes that stay in float32: what an index is computed from, and the distances to an index."""
    given: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not given.isdisjoint(node.all_input_nodes):
            given.add(node)
    kept: set[fx.Node] = set()
    pending = [source for node in graph.nodes if _makes_index(node) for source in node.all_input_nodes]
    while pending:
        node = pending.pop()
        # What depends on no input is a grid that is the same for every image.
        if node not in kept and (_is_arithmetic(node) or (node.op == "call_function" and node not in given)):
            kept.add(node)
            pending.extend(node.all_input_nodes)
    for node in graph.nodes:
        operands = [source for source in node.all_input_nodes if _is_float(source)]
        if (
            _is_arithmetic(node)
            and any(source in kept for source in operands)
            and all(source in kept or source.op == "get_attr" for source in operands)
        ):
            kept.add(node)
    return frozenset(kept)


class _Rounding:
    """Visits the nodes of a module in order, and knows the dtype that each of them now has."""

    def __init__(self, module: fx.GraphModule, kept: frozenset[fx.Node]) -> None:
        self._module = module
        self._kept = kept
        self._dtypes: dict[fx.Node, torch.dtype] = {}
        self._casts: dict[tuple[fx.Node, torch.dtype], fx.Node] = {}

    def visit(self, node: fx.Node) -> None:
        if node.op == "get_attr":
            self._weight(node)
        elif node.op == "output":
            self._cast_operands(node, torch.float32)
        elif node.op == "placeholder" or node in self._kept:
            self._dtypes[node] = torch.float32
            self._cast_operands(node, torch.float32)
        elif node.target is operator.getitem:
            self._dtypes[node] = self._dtypes.get(node.all_input_nodes[0], torch.float32)
        elif not _makes_index(node):
            self._halve(node)

    def _weight(self, node: fx.Node) -> None:
        value = constant(self._module, node)
        if value is None or not value.is_floating_point():
            return
        whole = any(user in self._kept or user.op == "output" for user in node.users)
        self._dtypes[node] = torch.float32 if whole else torch.float16
        if not whole:
            *parents, leaf = str(node.target).split(".")
            setattr(self._module.get_submodule(".".join(parents)), leaf, _weight(value.half()))

    def _halve(self, node: fx.Node) -> None:
        stated = node.args, node.kwargs
        node.args, node.kwargs = fx.node.map_aggregate(stated, _half_dtype)
        self._cast_operands(node, torch.float16)
        made_of_floats = any(_is_float(source) for source in node.all_input_nodes)
        self._dtypes[node] = torch.float16 if made_of_floats or (node.args, node.kwargs) != stated else torch.float32

    def _cast_operands(self, node: fx.Node, dtype: torch.dtype) -> None:
        for source in node.all_input_nodes:
            if _is_float(source) and self._dtypes[source] != dtype:
                node.replace_input_with(source, self._cast(source, dtype))

    def _cast(self, source: fx.Node, dtype: torch.dtype) -> fx.Node:
        if (source, dtype) not in self._casts:
            with self._module.graph.inserting_after(source):
                cast = self._module.graph.call_function(aten._to_copy.default, (source,), {"dtype": dtype})
            cast.meta["val"] = source.meta["val"].to(dtype) if "val" in source.meta else None
            self._dtypes[cast] = dtype
            self._casts[source, dtype] = cast
        return self._casts[source, dtype]


def _weight(value: Tensor) -> nn.Parameter:
    return nn.Parameter(value, requires_grad=False)


def _half_dtype(item: Any) -> Any:
    return torch.float16 if item is torch.float32 else item


def _packet(node: fx.Node) -> object:
    return getattr(node.target, "overloadpacket", None) if node.op == "call_function" else None


def _is_arithmetic(node: fx.Node) -> bool:
    return _packet(node) in _ARITHMETIC and _is_float(node)


def _makes_index(node: fx.Node) -> bool:
    """Whether ``node`` turns numbers into whole ones."""
    return _packet(node) in _TO_DTYPE and not _is_float(node) and any(map(_is_float, node.all_input_nodes))


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()
