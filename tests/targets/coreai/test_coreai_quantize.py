"""Integers in Core AI assets, on files that Apple's runtime runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coreai_cases import write_asset
from torch import nn

from deploykit.errors import TargetError
from deploykit.targets.coreai.inspection import read_contents
from deploykit.targets.coreai.program import METADATA
from deploykit.targets.coreai.quantize import activations, observe, quantize
from deploykit.targets.coreai.runtime import open_artifact
from deploykit.targets.coreai.traced import trace
from deploykit.targets.quantized import KEPT, NO_GAIN, Activation, QuantizedFile, Range
from deploykit.targets.traced import Arithmetic
from deploykit.vocab import Precision

SHAPE = (1, 3, 12, 16)
IMAGE = np.random.default_rng(2).normal(size=SHAPE).astype(np.float32)


class Net(nn.Module):
    """Every operation that multiplies by weights, one weight too small to gain, one channel that is dead."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.gate = nn.Linear(16, 16)
        self.up = nn.ConvTranspose2d(32, 8, 2, stride=2)
        self.grey = nn.Conv2d(1, 3, 1)
        with torch.no_grad():
            self.stem.weight[4] = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.stem(x))
        y = self.depthwise(x) * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        up = self.up(torch.cat([x, y], 1))
        return up, self.grey(up[:, :1])


@pytest.fixture(scope="module")
def asset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("float") / "net.aimodel"
    return write_asset(Net(), path, *SHAPE, outputs=("scores", "grey"), precision=Precision.FP16)


@pytest.fixture(scope="module")
def listed(asset: Path) -> tuple[Activation, ...]:
    return activations(asset, Precision.INT8)


@pytest.fixture(scope="module")
def seen(asset: Path, listed: tuple[Activation, ...]) -> dict[str, np.ndarray]:
    names = [one.name for one in listed]
    (found,) = observe(asset, [{"image": IMAGE}], names)
    assert list(found) == names
    return found


@pytest.fixture(scope="module")
def truth(asset: Path) -> np.ndarray:
    return scores(asset)


@pytest.fixture(scope="module")
def ranges(seen: dict[str, np.ndarray]) -> dict[str, Range]:
    return {name: Range(min(0.0, float(one.min())), max(0.0, float(one.max()))) for name, one in seen.items()}


@pytest.fixture(scope="module")
def rounded(
    asset: Path, ranges: dict[str, Range], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, QuantizedFile]:
    path = tmp_path_factory.mktemp("int8") / "net.aimodel"
    return path, quantize(asset, path, Precision.INT8, ranges=ranges)


def scores(path: Path) -> np.ndarray:
    with open_artifact(path) as runtime:
        return runtime.run({"image": IMAGE})["scores"]


def error(truth: np.ndarray, output: Path) -> float:
    return float(np.linalg.norm(scores(output) - truth) / np.linalg.norm(truth))


def of(record: QuantizedFile) -> dict[str, str]:
    return {one.name: one.reason for one in record.left_in_float}


def named(listed: tuple[Activation, ...], kind: str, position: int = 0) -> str:
    """Return the value that the operation of ``kind`` at ``position`` among its like computes."""
    return [one.name for one in listed if one.operation == kind][position]


def test_activations_are_those_of_the_program_inputs_first(asset: Path, listed: tuple[Activation, ...]) -> None:
    found = listed
    assert (found[0].name, found[0].operation, found[0].shape) == ("image", "", SHAPE)
    known: set[str] = set()
    for one in found:
        assert set(one.reads) <= known
        known.add(one.name)
    integer = sorted(one.operation for one in found if one.quantizes)
    assert integer == ["broadcasting_batch_matmul", "conv2d", "conv2d", "conv2d", "conv_transpose2d"]
    assert sorted(one.operation for one in found if one.takes_weights) == integer
    assert not any(one.quantizes for one in activations(asset, Precision.INT8_WEIGHTS))


@pytest.mark.full
def test_activations_are_seen_as_a_trace_sees_them(asset: Path, seen: dict[str, np.ndarray]) -> None:
    traced = {one.name: one.value for one in trace(asset, {"image": IMAGE}, Arithmetic.RUNTIME).values}
    assert set(seen) == {"image", *(name for name, value in traced.items() if value.dtype.kind == "f")}
    for name, value in seen.items():
        np.testing.assert_array_equal(value, IMAGE if name == "image" else traced[name])


@pytest.mark.parametrize(
    ("precision", "bound"),
    [
        pytest.param(Precision.INT8_WEIGHTS, 0.02, marks=pytest.mark.full),
        (Precision.PALETTE6, 0.06),
        pytest.param(Precision.PALETTE4, 0.3, marks=pytest.mark.full),
    ],
)
def test_weights_alone(
    asset: Path,
    listed: tuple[Activation, ...],
    truth: np.ndarray,
    tmp_path: Path,
    precision: Precision,
    bound: float,
) -> None:
    record = quantize(asset, tmp_path / "out.aimodel", precision, ranges={})
    contents = read_contents(tmp_path / "out.aimodel")
    kind = "blockwise_shift_scale" if precision is Precision.INT8_WEIGHTS else "lut_to_dense"
    assert contents.quantized == {kind: record.weights} == {kind: 4}
    assert record.activations == 0
    assert of(record) == {named(listed, "conv2d", -1): NO_GAIN}
    assert bound / 30 < error(truth, tmp_path / "out.aimodel") < bound
    assert record.weight_bytes < record.float_weight_bytes
    read = [item for item in contents.weights if not item.dtype.startswith(("int16", "int32", "uint32", "int64"))]
    assert record.weight_bytes == sum(item.size_bytes for item in read)


def test_weights_and_activations(
    listed: tuple[Activation, ...], truth: np.ndarray, rounded: tuple[Path, QuantizedFile]
) -> None:
    path, record = rounded
    contents = read_contents(path)
    assert contents.quantized["quantize"] == contents.quantized["dequantize"] == record.activations == 4
    assert contents.quantized["blockwise_shift_scale"] == record.weights == 4
    assert of(record) == {named(listed, "conv2d", -1): NO_GAIN}
    assert 1e-4 < error(truth, path) < 0.05


def test_wrong_ranges_are_worse(asset: Path, truth: np.ndarray, ranges: dict[str, Range], tmp_path: Path) -> None:
    narrow = {name: Range(one.lowest / 4, one.highest / 4) for name, one in ranges.items()}
    quantize(asset, tmp_path / "narrow.aimodel", Precision.INT8, ranges=narrow)
    assert error(truth, tmp_path / "narrow.aimodel") > 0.1


@pytest.mark.full
def test_kept_operations_compute_in_float_and_kept_weights_stay(
    asset: Path, listed: tuple[Activation, ...], ranges: dict[str, Range], tmp_path: Path
) -> None:
    stem, up = named(listed, "conv2d"), named(listed, "conv_transpose2d")
    record = quantize(asset, tmp_path / "out.aimodel", Precision.INT8, ranges=ranges, kept=[stem], kept_weights=[up])
    assert (record.activations, record.weights) == (2, 3)
    assert of(record) == {stem: KEPT, up: KEPT, named(listed, "conv2d", -1): NO_GAIN}


def test_the_same_call_gives_the_same_bytes_and_the_same_description(
    asset: Path, rounded: tuple[Path, QuantizedFile], ranges: dict[str, Range], tmp_path: Path
) -> None:
    path, _ = rounded
    quantize(asset, tmp_path / "again.aimodel", Precision.INT8, ranges=ranges)
    names = sorted(item.name for item in path.iterdir())
    assert names == sorted(item.name for item in asset.iterdir())
    for name in names:
        assert (path / name).read_bytes() == (tmp_path / "again.aimodel" / name).read_bytes()
    assert json.loads((path / METADATA).read_text()) == json.loads((asset / METADATA).read_text())
    before, after = read_contents(asset), read_contents(path)
    assert (before.inputs, before.outputs, before.minimum_os) == (after.inputs, after.outputs, after.minimum_os)


def test_what_cannot_be_is_refused(
    asset: Path, listed: tuple[Activation, ...], ranges: dict[str, Range], tmp_path: Path
) -> None:
    output = tmp_path / "out.aimodel"
    with pytest.raises(TargetError, match="w8a16"):
        quantize(asset, output, Precision.W8A16, ranges={})
    read = next(one.reads[0] for one in listed if one.operation == "conv_transpose2d")
    with pytest.raises(TargetError, match="have no range") as missing:
        quantize(asset, output, Precision.INT8, ranges={name: one for name, one in ranges.items() if name != read})
    assert missing.value.found.endswith(f" without: {read}")
    assert not output.exists()
