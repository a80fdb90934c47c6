"""Where two graphs part: the first module whose value differs, or is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from deploykit.graph.graph import Graph, module_path


class _Recording(fx.Interpreter):
    """Runs a graph and keeps every tensor that it computes, by node."""

    def __init__(self, graph: Graph) -> None:
        super().__init__(graph.module)
        self.values: dict[fx.Node, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and keep its value."""
        value = super().run_node(n)
        if isinstance(value, Tensor) and n.op == "call_function":
            self.values[n] = value
        return value


def _record(graph: Graph, inputs: Sequence[Tensor]) -> dict[fx.Node, Tensor]:
    recording = _Recording(graph)
    with torch.no_grad():
        recording.run(*inputs)
    return recording.values


def first_not_finite(graph: Graph, inputs: Sequence[Tensor]) -> str | None:
    """Return the path of the first module of ``graph`` whose value holds NaN or infinity, or None."""
    for node, value in _record(graph, inputs).items():
        if value.is_floating_point() and not value.isfinite().all():
            return module_path(node)
    return None


def first_difference(training: Graph, deploy: Graph, inputs: Sequence[Tensor], relative_l2: float) -> str | None:
    """Return the path of the first module whose value in ``deploy`` is further than ``relative_l2`` from training's.

    Values are matched by the names that the passes record; None where every matched value agrees.
    """
    reference = {node.name: value for node, value in _record(training, inputs).items()}
    for node, value in _record(deploy, inputs).items():
        origin = node.meta.get("custom", {}).get("deploykit", {}).get("value", node.name)
        expected = reference.get(origin)
        if expected is None or expected.shape != value.shape or not value.is_floating_point():
            continue
        error = torch.linalg.vector_norm(value - expected)
        norm = torch.linalg.vector_norm(expected)
        if not error <= relative_l2 * norm:
            return module_path(node)
    return None
