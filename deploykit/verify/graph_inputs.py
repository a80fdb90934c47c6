"""A sample as the inputs of a graph: pixels where the preprocessing is part of it, else the network's own tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from deploykit.graph.graph import Graph
from deploykit.graph.passes.build_in_preprocessing import NAME as BUILD_IN
from deploykit.recipe import Recipe
from deploykit.records import TensorRecord
from deploykit.verify.samples import Sample, feed


def graph_inputs(
    graph: Graph, recipe: Recipe, sample: Sample, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, ...]:
    """Return the inputs of ``graph`` for ``sample``, in its order: 8-bit pixels as such, all else in ``dtype``."""
    built_in = bool(graph.report(BUILD_IN).fired)
    images = {item.name for item in recipe.file.inputs if item.kind == "image"}
    kinds = ["uint8" if built_in and spec.name in images else "float32" for spec in graph.inputs]
    records = [TensorRecord(s.name, s.shape, kind, s.layout) for s, kind in zip(graph.inputs, kinds, strict=True)]
    given = feed(sample, records, recipe)
    values = [torch.from_numpy(given[spec.name]) for spec in graph.inputs]
    return tuple(v if spec.dtype == "uint8" else v.to(dtype) for v, spec in zip(values, graph.inputs, strict=True))
