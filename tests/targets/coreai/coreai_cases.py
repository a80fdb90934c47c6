"""Assets made of plain PyTorch networks, by the same steps as every export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from deploykit.chatter import contained
from deploykit.graph.capture import capture
from deploykit.graph.round import round_weights
from deploykit.records import ExportPlan
from deploykit.targets.base import ExportRequest
from deploykit.targets.coreai.lowering import PASSES
from deploykit.targets.table import part
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target, TensorSpec

METADATA = {
    "description": "a network of this test",
    "license": "Apache-2.0",
    "source": "this test",
    "input.image": "noise",
    "output.scores": "two scores",
}


def write_asset(
    network: nn.Module,
    path: Path,
    *shape: int,
    outputs: Sequence[str] = ("scores",),
    precision: Precision = Precision.FP32,
) -> Path:
    """Write ``network``, as it is, as the asset ``path`` and return ``path``; its input of ``shape`` is ``image``."""
    inputs = (TensorSpec("image", tuple(shape), "float32"),)
    graph = round_weights(capture(network.eval(), [torch.zeros(*shape)], inputs, outputs))
    for rewrite in PASSES:
        graph = rewrite(graph)
    plan = ExportPlan(
        Target.COREAI, precision, Layout.NCHW, InputKind.TENSOR, OutputKind.LOGITS, (tuple(shape),), (), None, "iOS27"
    )
    with contained():
        part(Target.COREAI, "export").write(ExportRequest(graph, plan, SimpleNamespace(name="test"), METADATA), path)
    return path
