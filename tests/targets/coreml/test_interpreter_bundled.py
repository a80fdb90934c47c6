"""The bundled networks: the fp32 program that deploykit writes, interpreted, against PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deploykit import api
from deploykit.chatter import contained
from deploykit.description import describe
from deploykit.graph.graph import Graph
from deploykit.lowering import ExportOptions, lower, plan_export
from deploykit.pipeline import simplified
from deploykit.targets.base import ExportRequest
from deploykit.targets.coreml import export
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.verify.reference import reference_outputs
from deploykit.verify.samples import Sample, draw_samples
from deploykit.vocab import Target

RELATIVE_L2 = 1e-5  # the figure that the project promises


@dataclass(frozen=True)
class Written:
    """A network, its lowered float32 graph, and the file that was written from it."""

    network: Any
    graph: Graph
    path: Path

    def samples(self) -> tuple[Sample, ...]:
        return draw_samples(self.network.recipe, noise=1, portraits=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def made(name: str) -> Written:
        network = api.load(name)
        training, _ = simplified(network)
        plan = plan_export(network.recipe, Target.COREML, ExportOptions())
        graph = lower(training, network.recipe, plan)
        path = tmp_path_factory.mktemp(name) / f"{name}.mlpackage"
        with contained():
            export.write(ExportRequest(graph, plan, network.recipe, describe(network, plan)), path)
        return Written(network, graph, path)

    return made


def by_pytorch(graph: Graph, sample: Sample, names: list[str]) -> dict[str, np.ndarray]:
    """What PyTorch makes of the very graph that the file was written from, in float32."""
    with torch.no_grad():
        results = graph.module(*(torch.from_numpy(sample.tensors[name]) for name in names))
    results = [results] if isinstance(results, torch.Tensor) else list(results)
    return {name: result.numpy() for name, result in zip(graph.outputs, results, strict=True)}


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found.astype(np.float64) - expected) / np.linalg.norm(expected))


@pytest.mark.full
@pytest.mark.parametrize("name", ["sinet", "rcrnet", "portraitnet", "elb", "mobilenetv3-sappm"])
def test_an_fp32_program_equals_pytorch(name: str, written: Any) -> None:
    item = written(name)
    names = [given.name for given in item.network.recipe.file.inputs]
    interpreter = MilInterpreter(item.path)
    assert interpreter.unknown_operations() == ()
    samples = item.samples()
    exact = reference_outputs(item.network.module, item.network.recipe, samples)
    for sample, trained in zip(samples, exact, strict=True):
        found = interpreter.run(sample.tensors)
        lowered = by_pytorch(item.graph, sample, names)
        for output, values in found.items():
            assert relative_l2(values, lowered[output]) <= RELATIVE_L2
            assert relative_l2(values, trained[output]) <= RELATIVE_L2
    # The bound sees one input value in a hundred move by a thousandth of its range.
    moved = {
        key: np.where(np.arange(x.size).reshape(x.shape) % 100, x, x * 1.01) for key, x in samples[0].tensors.items()
    }
    other = interpreter.run({key: x.astype(np.float32) for key, x in moved.items()})
    assert max(relative_l2(other[output], exact[0][output]) for output in other) > RELATIVE_L2
