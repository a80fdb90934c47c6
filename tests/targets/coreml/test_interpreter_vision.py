"""Networks of the families that users bring, converted by coremltools alone: the interpreted file against PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from test_interpreter_network import FP16_RELATIVE_L2, FP32_RELATIVE_L2, converted, distance, outputs
from torch import Tensor, nn
from vision_networks import DeepLab, MobileNetV2, MobileNetV3, ResNet, UNet, randomized

NETWORKS: tuple[type[nn.Module], ...] = (MobileNetV2, MobileNetV3, ResNet, UNet, DeepLab)
OPSETS = ("iOS15", "iOS16", "iOS17", "iOS18")
FULL = pytest.mark.full
# One opset for each network, so that each opset is met; make test-full runs the rest.
PLAIN = {("iOS15", MobileNetV2), ("iOS16", MobileNetV3), ("iOS17", ResNet), ("iOS18", UNet), ("iOS17", DeepLab)}
COMBINATIONS = [
    pytest.param(target, network, marks=() if (target, network) in PLAIN else FULL)
    for target in OPSETS
    for network in NETWORKS
]


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 4 - 2


def worst(model: nn.Module, image: Tensor, path: Path, precision: str, target: str) -> float:
    """The largest relative L2 distance among the outputs."""
    interpreter = converted(model, image, path, precision, target)
    assert interpreter.unknown_operations() == ()
    found = interpreter.run({"x": image.numpy()})
    return max(
        distance(found[tensor.name].astype(np.float32), expected)
        for tensor, expected in zip(interpreter.outputs, outputs(model, image), strict=True)
    )


@pytest.mark.parametrize(("target", "network"), COMBINATIONS)
def test_an_fp32_program_equals_pytorch(target: str, network: type[nn.Module], image: Tensor, tmp_path: Path) -> None:
    assert worst(randomized(network()), image, tmp_path / "net.mlpackage", "FLOAT32", target) <= FP32_RELATIVE_L2


@pytest.mark.parametrize(
    ("target", "network"),
    [
        pytest.param(target, network, marks=() if (target, network) == ("iOS18", MobileNetV3) else FULL)
        for target in OPSETS
        for network in NETWORKS
    ],
)
def test_an_fp16_program_is_near_pytorch(target: str, network: type[nn.Module], image: Tensor, tmp_path: Path) -> None:
    found = worst(randomized(network()), image, tmp_path / "net.mlpackage", "FLOAT16", target)
    # Half precision it is: an fp32 program stays far below.
    assert 10 * FP32_RELATIVE_L2 < found <= FP16_RELATIVE_L2


@pytest.mark.parametrize("network", [pytest.param(network, marks=FULL) for network in NETWORKS])
def test_another_running_mean_fails(network: type[nn.Module], image: Tensor, tmp_path: Path) -> None:
    model = randomized(network())
    expected = outputs(model, image)[0]
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.running_mean is not None
    norm.running_mean += 0.05
    interpreter = converted(model, image, tmp_path / "net.mlpackage", "FLOAT32", "iOS15")
    assert distance(next(iter(interpreter.run({"x": image.numpy()}).values())), expected) > FP32_RELATIVE_L2
