"""The float32 graph as an exported program, with the names of its inputs: where every converter begins."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph
from deploykit.vocab import TensorSpec

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
