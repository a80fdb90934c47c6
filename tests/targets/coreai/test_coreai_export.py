"""What deploykit writes into a Core AI asset: its description, the same bytes each time, half precision."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coreai_cases import METADATA, write_asset
from torch import nn

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import total
from deploykit.targets.coreai import precision
from deploykit.targets.coreai.client import Child
from deploykit.targets.coreai.export import content_items
from deploykit.targets.coreai.inspection import read_contents
from deploykit.targets.coreai.program import Program, program_from_json
from deploykit.targets.coreai.runtime import open_artifact
from deploykit.vocab import FLOAT_PRECISIONS, Convention, Precision

SHAPE = (1, 3, 12, 16)
HEIGHT, WIDTH = 8, 160


class Layers(nn.Module):
    """A convolution of every kind that is counted, a pooling, a BatchNorm that nothing takes in, and a product."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.slope = nn.PReLU(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm = nn.BatchNorm2d(8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.linear = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.slope(self.stem(x))
        x = self.norm(F.avg_pool2d(self.depthwise(x), 3, stride=1, padding=1))
        return self.up(x), self.linear(self.up(x))


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
def layers(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("layers") / "layers.aimodel"
    return write_asset(Layers(), path, *SHAPE, outputs=("scores", "lines"))


def described(path: Path) -> Program:
    with Child(path) as child:
        return program_from_json(child.ask("describe")[0])


def test_the_asset_says_what_it_is_and_not_when_it_was_made(layers):
    assert sorted(item.name for item in layers.iterdir()) == ["main.hash", "main.mlirb", "metadata.json"]
    said = json.loads((layers / "metadata.json").read_text())
    assert (said["description"], said["license"], said["author"]) == (
        METADATA["description"],
        METADATA["license"],
        METADATA["source"],
    )
    assert said["creatorDefinedMetadata"] == {f"deploykit.{key}": text for key, text in METADATA.items()}
    assert "creationDate" not in said
    raw = (layers / "main.mlirb").read_bytes()
    assert (layers / "main.hash").read_bytes() == hashlib.sha256(raw).digest()
    assert str(Path.cwd()).encode() not in raw
    assert b".py" not in raw


def test_the_bytes_are_the_same_each_time_and_the_content_knows_a_weight(layers, tmp_path):
    again = write_asset(Layers(), tmp_path / "again.aimodel", *SHAPE, outputs=("scores", "lines"))
    for item in layers.iterdir():
        assert (again / item.name).read_bytes() == item.read_bytes()
    assert content_items(again) == content_items(layers)
    assert [item.name for item in tmp_path.iterdir()] == ["again.aimodel"]
    other = Layers()
    other.stem.bias.data[3] += 0.01
    changed = write_asset(other, tmp_path / "other.aimodel", *SHAPE, outputs=("scores", "lines"))
    assert content_items(changed) != content_items(layers)


def test_what_the_file_holds(layers):
    contents = read_contents(layers)
    assert [(one.name, one.shape, one.dtype, one.meaning) for one in contents.inputs] == [
        ("image", SHAPE, "float32", "noise")
    ]
    assert [(one.name, one.shape, one.meaning) for one in contents.outputs] == [
        ("scores", (1, 4, 12, 16), "two scores"),
        ("lines", (1, 4, 12, 5), ""),
    ]
    assert contents.minimum_os == "iOS 27, macOS 27"
    assert contents.metadata["description"] == METADATA["description"]
    assert contents.size_bytes == sum(item.stat().st_size for item in layers.iterdir())
    # A BatchNorm and a pooling are one operation each, whatever the file writes them out as.
    assert contents.operations.items() >= {"conv2d": 2, "batch_norm": 1, "avg_pool_2d": 1}.items()
    assert contents.quantized == {}
    assert set(contents.computed) == {"float32", "bool"}
    (floats,) = (one for one in contents.weights if one.dtype == "float32")
    assert floats.values >= sum(one.numel() for one in Layers().parameters())
    assert total(contents.work, Convention.MACS) == (
        3 * 9 * 8 * 48  # stem
        + 9 * 8 * 48  # depthwise
        + 8 * 4 * 4 * 48  # transposed
        + 16 * 5 * 4 * 12  # linear
    )


def test_a_damaged_file_is_no_content(layers, tmp_path):
    for name in ("absent.aimodel", "file.aimodel"):
        (tmp_path / "file.aimodel").write_bytes(b"hello")
        with pytest.raises(ArtifactError, match="cannot be read"):
            read_contents(tmp_path / name)


def test_a_slope_per_channel_costs_no_second_convolution(layers, tmp_path, monkeypatch):
    assert [one.name for one in described(layers).operations].count("conv2d") == 2
    monkeypatch.setattr("coreai_cases.PASSES", ())
    plain = write_asset(Layers(), tmp_path / "plain.aimodel", *SHAPE, outputs=("scores", "lines"))
    # The twin: what the converter makes of it alone.
    assert [one.name for one in described(plain).operations].count("conv2d") == 3


def error(path: Path, image: torch.Tensor) -> float:
    with torch.no_grad():
        truth = Warp().eval()(image)[0].numpy()
    with open_artifact(path) as runtime:
        return float(np.abs(runtime.run({"image": image.numpy()})["warped"] - truth).max())


def test_half_precision_keeps_coordinates_in_float32(tmp_path, monkeypatch):
    image = torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    kept = [
        write_asset(Warp(), tmp_path / f"{one}.aimodel", *image.shape, outputs=("warped", "flow"), precision=one)
        for one in FLOAT_PRECISIONS
    ]
    exact, half = (error(path, image) for path in kept)
    assert exact < 5e-5 < half < 2e-3
    contents = read_contents(kept[1])
    assert {one.dtype for one in (*contents.inputs, *contents.outputs)} == {"float32"}
    values = described(kept[1]).values()
    convolutions = [one for one in described(kept[1]).operations if one.name == "conv2d"]
    assert {values[name].dtype for one in convolutions for name in one.operands[:2]} == {"float16"}
    # The twin: everything in half precision.
    monkeypatch.setattr(precision, "float32_nodes", lambda graph: frozenset())
    rounded = write_asset(
        Warp(), tmp_path / "all.aimodel", *image.shape, outputs=("warped", "flow"), precision=Precision.FP16
    )
    assert error(rounded, image) > 5 * half
