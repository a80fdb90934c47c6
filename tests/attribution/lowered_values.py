"""What the lowered graph computes in float64, node by node, to hold the values of a traced file against."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from fault_cases import Case
from torch import fx

from deploykit.lowering import lower_exactly
from deploykit.records import ExportPlan
from deploykit.targets.table import part
from deploykit.targets.traced import Arithmetic, Trace, TracedValue
from deploykit.verify.samples import feed


class _Recording(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.values: dict[str, np.ndarray] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op == "call_function" and isinstance(value, torch.Tensor) and value.is_floating_point():
            self.values[n.name] = value.numpy()
        return value


def lowered_values(case: Case, plan: ExportPlan) -> dict[str, np.ndarray]:
    """Return node of the lowered graph → its value in float64, for the first sample of ``case``."""
    graph = lower_exactly(case.deploy, case.network.recipe, plan)
    recording = _Recording(graph.module)
    with torch.no_grad():
        recording.run(*(torch.from_numpy(case.samples[0].tensors[spec.name]).double() for spec in graph.inputs))
    return recording.values


def traced(case: Case, path: Path, plan: ExportPlan, arithmetic: Arithmetic = Arithmetic.RUNTIME) -> Trace:
    """Return the trace of the file at ``path`` for the same sample."""
    with part(plan.target, "runtime").open_artifact(path) as runtime:
        inputs = feed(case.samples[0], runtime.inputs, case.network.recipe)
    trace: Trace = part(plan.target, "traced").trace(path, inputs, arithmetic)
    return trace


def distance(value: TracedValue, expected: np.ndarray) -> float:
    """Return the relative L2 distance of ``value``, its axes put in order, from ``expected``; infinite for others."""
    found = value.value.transpose(0, 3, 1, 2) if value.channels_last else value.value
    if found.size != expected.size:
        return float("inf")
    error = np.linalg.norm(found.astype(np.float64).ravel() - expected.ravel())
    return float(error / max(np.linalg.norm(expected), 1e-30))
