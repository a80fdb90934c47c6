"""Integers in Core ML programs, on files that the reference interpreter runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from interpreter_programs import quiet_conversion
from torch import nn

from deploykit.errors import ArtifactError, TargetError
from deploykit.targets.coreml.export import content_items
from deploykit.targets.coreml.inspection import read_contents
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.coreml.quantize import activations, observe, quantize
from deploykit.targets.quantized import KEPT, NO_GAIN, QuantizedFile, Range
from deploykit.vocab import Precision

PIXELS = np.random.default_rng(5).integers(0, 256, (16, 16, 3)).astype(np.uint8)
WEIGHTS_ALONE = (Precision.INT8_WEIGHTS, Precision.PALETTE6, Precision.PALETTE4)
COMPRESSED = ("constexpr_affine_dequantize", "constexpr_blockwise_shift_scale", "constexpr_lut_to_dense")


class Net(nn.Module):
    """Every operation that Core ML computes in integers, one weight too small to gain, one channel that is dead."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.gate = nn.Linear(16, 16)
        self.mix = nn.Parameter(torch.randn(16, 16) / 4)
        self.up = nn.ConvTranspose2d(32, 8, 2, stride=2)
        self.grey = nn.Conv2d(1, 3, 1)
        with torch.no_grad():
            self.stem.weight[4] = 0

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = F.relu(self.stem(x / 128 - 1))
        y = self.depthwise(x) * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        y = torch.cat([x, F.max_pool2d(y @ self.mix, 3, 1, 1)], 1)
        up = self.up(y)
        return up, self.grey(up[:, :1])


def written(folder: Path, system: str, half: bool = True) -> Path:
    path = folder / f"{system}-{half}.mlpackage"
    with quiet_conversion(), warnings.catch_warnings():
        exported = torch.export.export(Net().eval(), (torch.zeros(1, 3, 16, 16),)).run_decompositions({})
        model = ct.convert(
            exported,
            inputs=[ct.ImageType(name="image", shape=(1, 3, 16, 16), color_layout=ct.colorlayout.BGR)],
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in ("scores", "grey")],
            compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
            minimum_deployment_target=ct.target[system],
            skip_model_load=True,
        )
        model.short_description, model.license, model.author = "a net", "a licence", "somebody"
        model.input_description["image"] = "pixels"
        model.output_description["scores"] = "meaning"
        model.user_defined_metadata["deploykit.recipe"] = "net"
        model.user_defined_metadata["com.apple.coreml.model.preview.type"] = "imageSegmenter"
        model.save(str(path))
    return path


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("float"), "iOS17")


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("newest"), "iOS18")


@pytest.fixture(scope="module")
def ranges(package: Path) -> dict[str, Range]:
    return spans(package)


def spans(path: Path) -> dict[str, Range]:
    names = [one.name for one in activations(path, Precision.INT8)]
    (found,) = observe(path, [{"image": PIXELS[None]}], names)
    return {name: Range(min(0.0, float(value.min())), max(0.0, float(value.max()))) for name, value in found.items()}


def run(path: Path) -> np.ndarray:
    return MilInterpreter(path).run({"image": PIXELS})["scores"]


def error(path: Path, output: Path) -> float:
    before, after = run(path), run(output)
    return float(np.linalg.norm(after - before) / np.linalg.norm(before))


def block(path: Path) -> Any:
    function = ct.models.MLModel(str(path), skip_model_load=True).get_spec().mlProgram.functions["main"]
    return function.block_specializations[function.opset]


def named(path: Path, kind: str, position: int = 0) -> str:
    """Return the value that the operation of ``kind`` at ``position`` among its like computes."""
    return [one.name for one in activations(path, Precision.INT8) if one.operation == kind][position]


def of(record: QuantizedFile) -> dict[str, str]:
    return {one.name: one.reason for one in record.left_in_float}


def test_activations_are_those_of_the_program_inputs_first(package: Path) -> None:
    found = activations(package, Precision.INT8)
    assert found[0].name == "image"
    assert found[0].operation == ""
    assert found[0].shape == (1, 3, 16, 16)
    seen: set[str] = set()
    for one in found:
        assert set(one.reads) <= seen
        seen.add(one.name)
    integer = [one.operation for one in found if one.quantizes]
    assert sorted(integer) == ["conv", "conv", "conv", "conv_transpose", "linear", "matmul"]
    assert {one.operation for one in found if one.takes_weights} == set(integer)
    assert not any(one.quantizes for one in activations(package, Precision.PALETTE4))


def test_activations_are_seen_as_the_interpreter_computes_them(package: Path) -> None:
    names = ["image", *(one.name for one in activations(package, Precision.INT8))]
    inputs = [{"image": PIXELS[None]}, {"image": 255 - PIXELS[None]}]
    first, second = observe(package, iter(inputs), names)
    for value in MilInterpreter(package).trace({"image": PIXELS}):
        if value.name in first:
            np.testing.assert_array_equal(first[value.name], value.value)
    assert set(first) == set(names)
    assert (first["image"] != second["image"]).any()


@pytest.mark.parametrize("precision", WEIGHTS_ALONE)
@pytest.mark.parametrize("system", ["iOS17", "iOS18"])
def test_weights_alone(package: Path, newest: Path, tmp_path: Path, precision: Precision, system: str) -> None:
    path, output = {"iOS17": package, "iOS18": newest}[system], tmp_path / "out.mlpackage"
    record = quantize(path, output, precision, ranges={})
    kinds = [operation.type for operation in block(output).operations]
    assert record.activations == kinds.count("quantize") == 0
    assert record.weights == sum(kinds.count(kind) for kind in COMPRESSED) == 5
    assert of(record) == {named(path, "conv", -1): NO_GAIN}
    bound = {Precision.INT8_WEIGHTS: 0.01, Precision.PALETTE6: 0.05, Precision.PALETTE4: 0.3}[precision]
    assert bound / 30 < error(path, output) < bound


@pytest.mark.parametrize("system", ["iOS17", "iOS18"])
def test_weights_and_activations(package: Path, newest: Path, tmp_path: Path, system: str) -> None:
    path, output = {"iOS17": package, "iOS18": newest}[system], tmp_path / "out.mlpackage"
    record = quantize(path, output, Precision.INT8, ranges=spans(path))
    operations = block(output).operations
    kinds = [operation.type for operation in operations]
    assert record.activations == kinds.count("quantize") == kinds.count("dequantize") == 5
    whole = {one.outputs[0].name for one in operations if one.type == "dequantize"}
    integer = [one for one in operations if one.type in ("conv", "conv_transpose", "linear", "matmul")]
    rounded = [one for one in integer if one.inputs["x"].arguments[0].name in whole]
    assert len(integer) - len(rounded) == 1
    assert len(record.left_in_float) == 1
    assert 1e-4 < error(path, output) < 0.05


def test_wrong_ranges_are_worse(package: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    narrow = {name: Range(one.lowest / 4, one.highest / 4) for name, one in ranges.items()}
    quantize(package, tmp_path / "narrow.mlpackage", Precision.INT8, ranges=narrow)
    assert error(package, tmp_path / "narrow.mlpackage") > 0.1


def test_a_float32_program_keeps_float32(tmp_path: Path) -> None:
    path = written(tmp_path, "iOS17", half=False)
    quantize(path, tmp_path / "out.mlpackage", Precision.INT8, ranges=spans(path))
    assert "float16" not in read_contents(tmp_path / "out.mlpackage").computed
    assert error(path, tmp_path / "out.mlpackage") < 0.05


def test_kept_operations_compute_in_float_and_kept_weights_stay(
    package: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    stem, up = named(package, "conv"), named(package, "conv_transpose")
    record = quantize(package, tmp_path / "a.mlpackage", Precision.INT8, ranges=ranges, kept=[stem])
    whole = quantize(package, tmp_path / "b.mlpackage", Precision.INT8, ranges=ranges, kept_weights=[up])
    assert (record.activations, record.weights) == (4, 5)
    assert of(record)[stem] == KEPT
    assert (whole.activations, whole.weights) == (4, 4)
    assert of(whole)[up] == KEPT
    assert whole.weight_bytes > record.weight_bytes


def test_bytes_are_those_of_the_file(package: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    record = quantize(package, tmp_path / "out.mlpackage", Precision.INT8, ranges=ranges)
    read = sum(item.size_bytes for item in read_contents(tmp_path / "out.mlpackage").weights)
    # Zero points of single bytes stand in the program itself, where inspect does not look for weights.
    assert read <= record.weight_bytes <= read + 2 * (record.weights + record.activations)
    assert record.float_weight_bytes == sum(item.size_bytes for item in read_contents(package).weights)


@pytest.mark.parametrize("precision", [Precision.INT8, *WEIGHTS_ALONE])
def test_the_same_call_gives_the_same_bytes_and_leaves_its_input(
    package: Path, ranges: dict[str, Range], tmp_path: Path, precision: Precision
) -> None:
    before = content_items(package)
    for name in ("a.mlpackage", "b.mlpackage"):
        quantize(package, tmp_path / name, precision, ranges=ranges)
    files = [item.relative_to(tmp_path / "a.mlpackage") for item in (tmp_path / "a.mlpackage").rglob("*")]
    names = [item for item in files if (tmp_path / "a.mlpackage" / item).is_file()]
    assert len(names) == 3
    assert all(
        (tmp_path / "a.mlpackage" / n).read_bytes() == (tmp_path / "b.mlpackage" / n).read_bytes() for n in names
    )
    assert content_items(package) == before != content_items(tmp_path / "a.mlpackage")


def test_what_the_package_says_of_itself_survives_also_when_coremltools_saves_it_again(
    package: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    output, again = tmp_path / "out.mlpackage", tmp_path / "again.mlpackage"
    quantize(package, output, Precision.INT8, ranges=ranges)
    ct.models.MLModel(str(output), skip_model_load=True).save(str(again))
    stated, kept, saved = (
        ct.models.MLModel(str(path), skip_model_load=True).get_spec() for path in (package, output, again)
    )
    assert kept.description == stated.description == saved.description
    assert kept.specificationVersion == stated.specificationVersion
    assert kept.description.input[0].type.imageType.colorSpace == stated.description.input[0].type.imageType.BGR
    assert kept.description.metadata.userDefined["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    np.testing.assert_array_equal(run(again), run(output))


def test_ranges_that_are_missing_or_have_no_end_are_named(
    package: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    read = next(one.reads[0] for one in activations(package, Precision.INT8) if one.operation == "conv_transpose")
    fewer = {name: one for name, one in ranges.items() if name != read}
    with pytest.raises(TargetError, match="have no range") as missing:
        quantize(package, tmp_path / "out.mlpackage", Precision.INT8, ranges=fewer)
    assert missing.value.found.endswith(f" without: {read}")
    with pytest.raises(TargetError, match="a range that is not finite"):
        quantize(package, tmp_path / "out.mlpackage", Precision.INT8, ranges={**ranges, read: Range(0, float("inf"))})
    assert not (tmp_path / "out.mlpackage").exists()


def test_what_core_ml_cannot_have_is_refused(package: Path, tmp_path: Path) -> None:
    old = written(tmp_path, "iOS16")
    with pytest.raises(TargetError, match="newer system") as refused:
        quantize(old, tmp_path / "out.mlpackage", Precision.INT8, ranges={})
    assert refused.value.expected == "iOS17 or later"
    quantize(old, tmp_path / "weights.mlpackage", Precision.INT8_WEIGHTS, ranges={})
    with pytest.raises(TargetError, match="w8a16"):
        quantize(package, tmp_path / "out.mlpackage", Precision.W8A16, ranges={})
    with pytest.raises(ArtifactError, match="cannot be quantized"):
        quantize(tmp_path, tmp_path / "out.mlpackage", Precision.INT8_WEIGHTS, ranges={})
