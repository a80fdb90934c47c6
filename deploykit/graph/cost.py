"""What a captured graph costs: every convention, layer by layer, and the peak memory of its activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from deploykit.graph.conventions import Kind, Operation, not_counted, total, unknown
from deploykit.graph.graph import Graph, module_path
from deploykit.graph.operations import graph_operations, operation_name
from deploykit.vocab import Convention

_FLOAT_BYTES = 4
# ATen does not declare this one as a view, though it is one.
_UNDECLARED_VIEWS = ("_unsafe_view", "getitem")

MEMORY_ASSUMPTIONS = (
    "Operations run one after the other in the order of the graph, none in place; a value lives from its operation to "
    "its last reader, inputs included, results to the end; a floating value takes 4 bytes; views take none; weights "
    "and the workspace of kernels are left out."
)


@dataclass(frozen=True)
class OperationCount:
    """How often one operation occurs."""

    name: str
    kind: Kind
    count: int


@dataclass(frozen=True)
class LayerCost:
    """What one module counts in every convention, over the ``operations`` that its own forward executes."""

    module: str
    operations: tuple[str, ...]
    macs: dict[Convention, int]


@dataclass(frozen=True)
class PeakMemory:
    """The most bytes of activations that are alive at once, and where; ``MEMORY_ASSUMPTIONS`` says what is counted."""

    size_bytes: int
    module: str
    operation: str


@dataclass(frozen=True)
class GraphCost:
    """What one graph costs. ``parameters`` are the values of its learned weights, without BatchNorm's statistics.

    ``macs`` and ``not_counted`` (operation → how often) hold every convention. ``unknown`` names the operations
    whose work is not known: the totals are then lower bounds.
    """

    parameters: int
    macs: dict[Convention, int]
    not_counted: dict[Convention, dict[str, int]]
    unknown: dict[str, int]
    peak: PeakMemory
    operations: tuple[OperationCount, ...]
    layers: tuple[LayerCost, ...]

    def largest(self, convention: Convention, number: int) -> tuple[LayerCost, ...]:
        """Return the at most ``number`` layers that count most in ``convention``, the largest first, none of 0."""
        ranked = sorted(self.layers, key=lambda layer: -layer.macs[convention])
        return tuple(layer for layer in ranked[:number] if layer.macs[convention])


def graph_cost(graph: Graph) -> GraphCost:
    """Return what ``graph`` costs in every convention; operations that are not known are listed, never an error."""
    operations = graph_operations(graph)
    counts = Counter((operation.name, operation.kind) for operation in operations)
    return GraphCost(
        parameters=sum(parameter.numel() for parameter in graph.module.parameters()),
        macs={convention: total(operations, convention) for convention in Convention},
        not_counted={convention: not_counted(operations, convention) for convention in Convention},
        unknown=unknown(operations),
        peak=peak_memory(graph),
        operations=tuple(OperationCount(name, kind, number) for (name, kind), number in counts.most_common()),
        layers=_layers(operations),
    )


def _layers(operations: Sequence[Operation]) -> tuple[LayerCost, ...]:
    by_module: dict[str, list[Operation]] = {}
    for operation in operations:
        by_module.setdefault(operation.module, []).append(operation)
    return tuple(
        LayerCost(
            module,
            tuple(dict.fromkeys(one.name for one in own)),
            {convention: total(own, convention) for convention in Convention},
        )
        for module, own in by_module.items()
    )


def peak_memory(graph: Graph) -> PeakMemory:
    """Return the peak of the activations of ``graph``, as ``MEMORY_ASSUMPTIONS`` says."""
    nodes = list(graph.module.graph.nodes)
    owners = dict(_owners(nodes))
    last = {owner: index for index, node in enumerate(nodes) for owner in (owners[s] for s in node.all_input_nodes)}
    freed: dict[int, list[fx.Node]] = {}
    for owner, index in last.items():
        freed.setdefault(index, []).append(owner)
    alive, peak = 0, PeakMemory(0, "", "")
    for index, node in enumerate(nodes):
        if owners[node] is node:
            alive += _bytes(node)
        if alive > peak.size_bytes:
            peak = PeakMemory(alive, module_path(node), operation_name(node))
        alive -= sum(_bytes(owner) for owner in freed.get(index, ()))
        if owners[node] is node and node not in last:
            alive -= _bytes(node)
    return peak


def _owners(nodes: Sequence[fx.Node]) -> Iterator[tuple[fx.Node, fx.Node]]:
    """Yield each node with the node whose memory its value lies in: its own, or the one that it is a view of."""
    owner: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        source = node.args[0] if _is_view(node) and node.args else None
        owner[node] = owner[source] if isinstance(source, fx.Node) else node
        yield node, owner[node]


def _is_view(node: fx.Node) -> bool:
    if node.op != "call_function":
        return False
    if isinstance(node.target, torch._ops.OpOverload) and any(
        result.alias_info is not None and not result.alias_info.is_write for result in node.target._schema.returns
    ):
        return True
    return operation_name(node) in _UNDECLARED_VIEWS


def _bytes(node: fx.Node) -> int:
    """Return the bytes of what ``node`` computes, of several results those that are read; weights take none here."""
    if node.op in ("get_attr", "output"):
        return 0
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        read = {user.args[1] for user in node.users if operation_name(user) == "getitem"}
        return sum(_size(one) for index, one in enumerate(value) if index in read)
    return _size(value)


def _size(value: object) -> int:
    if not isinstance(value, Tensor) or not all(isinstance(size, int) for size in value.shape):
        return 0
    return value.numel() * (_FLOAT_BYTES if value.is_floating_point() else value.element_size())
