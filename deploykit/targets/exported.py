"""The float32 graph as an exported program, with the names of its inputs: where every converter begins."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Collection

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph
from deploykit.vocab import TensorSpec

_LOWERED = "deploykit_lowered"
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "uint8": torch.uint8, "int32": torch.int32}


def example_inputs(inputs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    """Return zeros of the shapes and dtypes of ``inputs``, in their order."""
    return tuple(torch.zeros(spec.shape, dtype=_DTYPES[spec.dtype]) for spec in inputs)


def named_module(graph: Graph) -> fx.GraphModule:
    """Return a copy of the graph's module whose forward takes its inputs under their own names, weights contiguous."""
    copied = graph.copy().module
    placeholders = [node for node in copied.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, graph.inputs, strict=True):
        node.target = spec.name
        node.name = spec.name
    for weight in (*copied.parameters(), *copied.buffers()):
        # Converters read the storage of a weight and lose its strides.
        weight.data = weight.data.contiguous()
    copied.recompile()
    return copied


def exported_program(graph: Graph) -> torch.export.ExportedProgram:
    """Return ``graph`` exported again: its inputs keep their names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(named_module(graph).eval(), example_inputs(graph.inputs), strict=False)


def with_node_names(graph: Graph) -> Graph:
    """Return a copy of ``graph`` whose nodes note their names where a further export keeps them."""
    copied = graph.copy()
    for node in copied.module.graph.nodes:
        node.meta["custom"] = {**node.meta.get("custom", {}), _LOWERED: node.name}
    return copied


def lowered_names(exported: torch.export.ExportedProgram) -> dict[str, str]:
    """Return node of ``exported`` → the node of the graph of ``with_node_names`` that it completes.

    A further export names every node anew. Of several nodes that one became, the last completes it.
    """
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    others = {node.name for node in exported.graph.nodes if node.op != "call_function"}
    last = {lowered_name(node): node.name for node in nodes if not _takes_one_result(node)}
    return {name: lowered for lowered, name in last.items() if lowered is not None and lowered not in others}


def lowered_name(node: fx.Node) -> str | None:
    """Return the name of the node of the lowered graph that ``node`` comes from."""
    name: str | None = node.meta.get("custom", {}).get(_LOWERED)
    return name


def name_after_lowered(exported: torch.export.ExportedProgram) -> None:
    """Give nodes the names of what they complete in the lowered graph, and the others none that it had."""
    nodes = [node for node in exported.graph.nodes if node.op == "call_function"]
    names = lowered_names(exported)
    renamed = {node.name: names.get(node.name, f"step_{number}_") for number, node in enumerate(nodes)}
    for node in nodes:
        node.meta.pop("stack_trace", None)
        node.name = renamed[node.name]
    for spec in exported.graph_signature.output_specs:
        spec.arg.name = renamed.get(spec.arg.name, spec.arg.name)


def node_names(graph: Graph) -> frozenset[str]:
    """Return the names of the operations of ``graph``."""
    return frozenset(node.name for node in graph.module.graph.nodes if node.op == "call_function")


def names_in_file(graph: Graph, values: Collection[str]) -> frozenset[str]:
    """Return ``values``, nodes of the lowered ``graph``, as a file names them: those that it returns as its outputs."""
    returned = graph.module.graph.output_node().args[0]
    assert isinstance(returned, (tuple, list))
    named = zip(returned, graph.outputs, strict=True)
    outputs = {name for node, name in named if isinstance(node, fx.Node) and node.name in values}
    return frozenset(values) | outputs


def _takes_one_result(node: fx.Node) -> bool:
    """Whether ``node`` only takes a result of an operation that the same node of the lowered graph became."""
    return node.target is operator.getitem and lowered_name(node) == lowered_name(node.all_input_nodes[0])
