"""In an fp16 file the features are half precision and the places where a sampling reads them are not."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import coremltools as ct
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import nn

from deploykit.chatter import contained
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.coreml.precision import half_precision as coreml_half_precision
from deploykit.targets.onnx import precision
from deploykit.targets.onnx.precision import float32_nodes, half_precision

HEIGHT, WIDTH = 8, 160


class Warp(nn.Module):
    """Features sampled along two flows from one convolution, and the second flow, scaled, as another output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 1)
        self.flow = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rows, columns = (torch.linspace(-1, 1, size) for size in (HEIGHT, WIDTH))
        base = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
        flow, features = self.flow(x), self.features(x)
        first = F.grid_sample(features, base + flow[:, :2].permute(0, 2, 3, 1) / WIDTH, align_corners=True)
        second = F.grid_sample(features, base + flow[:, 2:].permute(0, 2, 3, 1) / WIDTH, align_corners=True)
        return first + second, flow[:, 2:] / WIDTH


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def truth(image) -> np.ndarray:
    with torch.no_grad():
        return Warp().eval()(image)[0].numpy()


def exported(image) -> torch.export.ExportedProgram:
    return torch.export.export(Warp().eval(), (image,))


@pytest.fixture(scope="module")
def model(image, tmp_path_factory) -> Callable[[], onnx.ModelProto]:
    path = tmp_path_factory.mktemp("half") / "warp.onnx"
    with contained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            exported(image), (image,), path, dynamo=True, opset_version=18, external_data=False, verbose=False
        )
    return lambda: onnx.load(path)


def onnx_error(model: onnx.ModelProto, image, truth) -> float:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    return float(np.abs(found - truth).max())


def test_onnx_keeps_coordinates_in_float32(model, image, truth, monkeypatch):
    kept = float32_nodes(model())
    half = half_precision(model())
    assert {node.op_type for node in half.graph.node if node.name in kept} >= {"GridSample", "Add"}
    weights = {item.name: item.data_type for item in half.graph.initializer}
    convolutions = [node for node in half.graph.node if node.op_type == "Conv"]
    assert all(weights[name] == TensorProto.FLOAT16 for node in convolutions for name in node.input[1:])
    # A value that both coordinates and an output need is half precision, with the output.
    assert not any(output.name in kept for output in half.graph.output)
    error = onnx_error(half, image, truth)
    assert 1e-5 < error < 2e-3
    # The twin: every node in half precision.
    monkeypatch.setattr(precision, "float32_nodes", lambda model: [])
    assert onnx_error(half_precision(model()), image, truth) > 5 * error


def test_onnx_casts_nothing_twice_and_rounds_nothing_on_the_way(model):
    graph = half_precision(model()).graph
    made = {name: node for node in graph.node for name in node.output}
    assert len(made) == sum(len(node.output) for node in graph.node)
    for node in graph.node:
        source = made.get(node.input[0]) if node.op_type == "Cast" else None
        assert source is None or source.op_type != "Cast"
    assert len({value.name for value in graph.value_info}) == len(graph.value_info)


def test_a_model_without_sampling_is_half_throughout(model):
    plain = model()
    del plain.graph.node[:]
    plain.graph.node.append(onnx.helper.make_node("Relu", ["x"], ["a"], "relu"))
    plain.graph.node.append(onnx.helper.make_node("Add", ["a", "a"], ["y"], "add"))
    assert float32_nodes(plain) == []


@pytest.mark.parametrize("minimum_os", ["iOS15", pytest.param("iOS17", marks=pytest.mark.full)])
def test_coreml_keeps_coordinates_in_float32(image, truth, tmp_path, minimum_os):
    errors, sizes = [], []
    for chosen in (coreml_half_precision(), ct.precision.FLOAT16):
        path = tmp_path / f"{len(errors)}.mlpackage"
        with contained(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ct.convert(
                exported(image).run_decompositions({}),
                inputs=[ct.TensorType(name="image", shape=image.shape, dtype=np.float32)],
                outputs=[ct.TensorType(name=name, dtype=np.float32) for name in ("warped", "flow")],
                minimum_deployment_target=ct.target[minimum_os],
                compute_precision=chosen,
                skip_model_load=True,
            ).save(str(path))
        interpreter = MilInterpreter(path)
        errors.append(float(np.abs(interpreter.run({"image": image.numpy()})["warped"] - truth).max()))
        sizes.append(
            {
                trace.value.dtype.name
                for trace in interpreter.trace({"image": image.numpy()})
                if trace.operation == "conv"
            }
        )
    assert sizes == [{"float16"}, {"float16"}]
    assert 1e-5 < errors[0] < 2e-3
    # The twin: every operation in half precision.
    assert errors[1] > 5 * errors[0]
