"""Whole networks: PyTorch's export converted to a file, the file interpreted, compared with PyTorch."""

from __future__ import annotations

from pathlib import Path

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interpreter_programs import quiet_conversion
from torch import Tensor, nn
from vision_networks import randomized

from deploykit.targets.coreml.interpreter import MilInterpreter

FP32_RELATIVE_L2 = 1e-5  # the figure that the project promises for fp32 programs
FP16_RELATIVE_L2 = 2e-3  # one rounding is up to 2^-11 = 4.9e-4; those of successive operations add up slowly


class Gate(nn.Module):
    """Squeeze-excite with a linear layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.relu(self.dense(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        return x * gate[:, :, None, None]


class Segmenter(nn.Module):
    """Every construct of SINet once: convolutions of each kind, shuffle, pooling, both upsamplings, blocking."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8, bias=False)
        self.gate = Gate(8)
        self.mix = nn.Conv2d(8, 8, 1, groups=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.act = nn.PReLU(8)
        self.head = nn.Conv2d(16, 2, 1)
        self.last = nn.Conv2d(2, 2, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.gate(self.depthwise(self.stem(x)))
        batch, channels, height, width = x.shape
        mixed = self.mix(x).view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)
        squeezed = self.act(self.norm(F.avg_pool2d(mixed, 2)))
        restored = F.interpolate(squeezed, size=(height, width), mode="bilinear", align_corners=True)
        scores = self.head(torch.cat([x, restored], dim=1))
        confidence = torch.softmax(scores, dim=1).amax(dim=1, keepdim=True)
        scores = scores * (1 - confidence).expand(scores.shape) + scores
        up: Tensor = self.last(F.interpolate(scores, scale_factor=2, mode="bilinear", align_corners=False))
        return up


class Mixed(nn.Module):
    """What other vision networks hold: transposed convolutions, gates, norms, pooling in ceiling mode, padding."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, stride=2)
        self.group = nn.GroupNorm(2, 8)
        self.layer = nn.LayerNorm(8)
        self.down = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True)
        self.up = nn.ConvTranspose2d(8, 8, 4, stride=2, padding=1, groups=8)
        self.out = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.hardswish(self.group(self.stem(F.pad(x, (1, 1, 1, 1), mode="reflect"))))
        x = F.gelu(self.layer(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        small = self.down(x)
        x = self.up(small)[..., : x.shape[-2], : x.shape[-1]] * F.hardsigmoid(x)
        x = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) + F.silu(x)
        features = F.elu(x).clamp(-0.5, 4.0) / (x.norm(dim=1, keepdim=True) + 1.0)
        return F.leaky_relu(self.out(features)), F.interpolate(small, scale_factor=2, mode="nearest").mean((2, 3))


def converted(network: nn.Module, x: Tensor, path: Path, precision: str, target: str) -> MilInterpreter:
    with quiet_conversion():
        exported = torch.export.export(network, (x,)).run_decompositions({})
        model = ct.convert(
            exported,
            inputs=[ct.TensorType(name="x", shape=x.shape, dtype=np.float32)],
            compute_precision=getattr(ct.precision, precision),
            minimum_deployment_target=getattr(ct.target, target),
        )
        model.save(str(path))
    return MilInterpreter(path)


def distance(found: np.ndarray, expected: Tensor) -> float:
    wanted = expected.numpy()
    assert found.shape == wanted.shape
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


def outputs(network: nn.Module, x: Tensor) -> list[Tensor]:
    with torch.no_grad():
        results = network(x)
    return list(results) if isinstance(results, tuple) else [results]


@pytest.fixture(scope="module")
def image() -> Tensor:
    return torch.rand(1, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 4 - 2


FULL = pytest.mark.full
LIMITS = {"FLOAT32": FP32_RELATIVE_L2, "FLOAT16": FP16_RELATIVE_L2}


@pytest.mark.parametrize(
    ("network", "precision", "target"),
    [
        (Segmenter, "FLOAT32", "iOS15"),
        (Mixed, "FLOAT32", "iOS18"),
        pytest.param(Segmenter, "FLOAT16", "iOS18", marks=FULL),
        pytest.param(Segmenter, "FLOAT32", "iOS18", marks=FULL),
        pytest.param(Mixed, "FLOAT32", "iOS15", marks=FULL),
        pytest.param(Mixed, "FLOAT16", "iOS15", marks=FULL),
        pytest.param(Segmenter, "FLOAT16", "iOS15", marks=FULL),
        pytest.param(Mixed, "FLOAT16", "iOS18", marks=FULL),
    ],
)
def test_a_converted_network_equals_pytorch(
    network: type[nn.Module], precision: str, target: str, image: Tensor, tmp_path: Path
) -> None:
    model = randomized(network())
    interpreter = converted(model, image, tmp_path / "net.mlpackage", precision, target)
    found = interpreter.run({"x": image.numpy()})
    assert interpreter.unknown_operations() == ()
    for tensor, expected in zip(interpreter.outputs, outputs(model, image), strict=True):
        assert distance(found[tensor.name], expected) <= LIMITS[precision]


@pytest.mark.parametrize("precision", ["FLOAT32", pytest.param("FLOAT16", marks=FULL)])
def test_a_perturbed_weight_fails(precision: str, image: Tensor, tmp_path: Path) -> None:
    model = randomized(Segmenter())
    expected = outputs(model, image)[0]
    with torch.no_grad():
        model.get_parameter("head.weight")[0, -1] += 1e-3 if precision == "FLOAT32" else 5e-2
    interpreter = converted(model, image, tmp_path / "net.mlpackage", precision, "iOS15")
    (found,) = interpreter.run({"x": image.numpy()}).values()
    assert distance(found, expected) > LIMITS[precision]
