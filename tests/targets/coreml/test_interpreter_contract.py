"""What the interpreter promises its caller: types, images, intermediate values, refusals."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import Builder as mb
from interpreter_programs import quiet_conversion, random, save_program

from deploykit.errors import ArtifactError, TargetError
from deploykit.targets.coreml.interpreter import ColorLayout, MilInterpreter

X = random(1, 3, 4, 5)


def _two_steps(x: Any) -> Any:
    return mb.sqrt(x=mb.square(x=x, name="squared"), name="root")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save_program(_two_steps, {"x": X}, tmp_path / "two.mlpackage", "iOS15")


def test_inputs_and_outputs_are_described(package: Path) -> None:
    interpreter = MilInterpreter(package)
    assert [(t.name, t.shape, t.dtype, t.color) for t in interpreter.inputs] == [("x", (1, 3, 4, 5), "float32", None)]
    assert [(t.name, t.shape, t.dtype) for t in interpreter.outputs] == [("out0", (1, 3, 4, 5), "float32")]


def test_intermediate_values_are_kept_by_name(package: Path) -> None:
    found = MilInterpreter(package).run({"x": X}, keep=["squared"])
    assert list(found) == ["out0", "squared"]
    np.testing.assert_allclose(found["squared"], X * X)


def test_the_trace_holds_every_value_in_order(package: Path) -> None:
    traced = list(MilInterpreter(package).trace({"x": X}))
    assert [(value.name, value.operation) for value in traced] == [
        ("squared", "square"),
        ("root", "sqrt"),
        ("out0", "identity"),
    ]
    np.testing.assert_allclose(traced[0].value, X * X)


def test_results_do_not_share_memory_with_the_input_or_each_other(package: Path) -> None:
    interpreter = MilInterpreter(package)
    first = interpreter.run({"x": X})["out0"]
    before = first.copy()
    interpreter.run({"x": X})["out0"][:] = 0
    np.testing.assert_array_equal(first, before)


def test_half_precision_rounds_after_every_operation(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        half = mb.cast(x=x, dtype="fp16")
        scaled = mb.mul(x=half, y=np.float16(1.1))
        return mb.cast(x=mb.add(x=scaled, y=np.float16(3.3)), dtype="fp32")

    path = save_program(build, {"x": X}, tmp_path / "half.mlpackage", "iOS15")
    expected = X.astype(np.float16) * np.float16(1.1) + np.float16(3.3)
    once = (X.astype(np.float16).astype(np.float32) * np.float16(1.1) + np.float16(3.3)).astype(np.float16)
    found = MilInterpreter(path).run({"x": X})["out0"]
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert (expected != once).any()


def test_half_precision_inputs_and_outputs_keep_their_type(tmp_path: Path) -> None:
    x = X.astype(np.float16)
    path = save_program(lambda x: mb.relu(x=x), {"x": x}, tmp_path / "half.mlpackage", "iOS16")
    found = MilInterpreter(path).run({"x": x})["out0"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.maximum(x, 0))


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.5


def _image_model(path: Path, channels: int, layout: Any) -> MilInterpreter:
    with quiet_conversion():
        exported = torch.export.export(Identity(), (torch.rand(1, channels, 4, 5),)).run_decompositions({})
        bias = [-1.0, -0.5, 0.25] if channels == 3 else -0.5
        image = ct.ImageType(name="image", shape=(1, channels, 4, 5), color_layout=layout, scale=1 / 64, bias=bias)
        ct.convert(
            exported,
            inputs=[image],
            outputs=[ct.TensorType(name="out")],
            compute_precision=ct.precision.FLOAT32,
            minimum_deployment_target=ct.target.iOS15,
        ).save(str(path))
    return MilInterpreter(path)


@pytest.mark.parametrize("layout", ["RGB", "BGR"])
def test_an_image_arrives_in_the_layout_of_the_program(layout: str, tmp_path: Path) -> None:
    interpreter = _image_model(tmp_path / "image.mlpackage", 3, getattr(ct.colorlayout, layout))
    (tensor,) = interpreter.inputs
    assert (tensor.shape, tensor.dtype, tensor.color) == ((4, 5, 3), "uint8", ColorLayout(layout.lower()))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    ordered = pixels if layout == "RGB" else pixels[..., ::-1]
    expected = (ordered / 64 + [-1.0, -0.5, 0.25]).transpose(2, 0, 1)[None] * 1.5
    np.testing.assert_allclose(interpreter.run({"image": pixels})["out"], expected, atol=1e-5)


def test_a_grey_image_has_one_channel(tmp_path: Path) -> None:
    interpreter = _image_model(tmp_path / "grey.mlpackage", 1, ct.colorlayout.GRAYSCALE)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 1)).astype(np.uint8)
    expected = (pixels / 64 - 0.5).transpose(2, 0, 1)[None] * 1.5
    np.testing.assert_allclose(interpreter.run({"image": pixels})["out"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "named"),
    [
        ({}, "none"),
        ({"y": X}, "y"),
        ({"x": X, "y": X}, "x, y"),
        ({"x": X[:, :2]}, "[1, 2, 4, 5]"),
        ({"x": X[0]}, "[3, 4, 5]"),
        ({"x": X.astype(np.float64)}, "float64"),
    ],
    ids=["missing", "unknown", "one too many", "shape", "rank", "type"],
)
def test_wrong_inputs_are_refused(package: Path, inputs: dict[str, np.ndarray], named: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        MilInterpreter(package).run(inputs)
    assert caught.value.found is not None
    assert named in caught.value.found


def test_an_unknown_value_cannot_be_kept(package: Path) -> None:
    with pytest.raises(ArtifactError, match="no such value"):
        MilInterpreter(package).run({"x": X}, keep=["squared", "cubed"])


def test_every_unknown_operation_is_named_at_once(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        noise = mb.random_normal(shape=[1, 3, 4, 5])
        boxes = np.zeros((1, 1, 4, 1, 1), np.float32)
        branch = mb.cond(
            pred=mb.greater(x=mb.reduce_sum(x=x), y=0.0),
            _true_fn=lambda: mb.relu(x=x),
            _false_fn=lambda: mb.random_uniform(shape=[1, 3, 4, 5]),
        )
        return mb.add(x=noise, y=branch), mb.crop_resize(x=x, roi=boxes, target_height=2, target_width=2)

    interpreter = MilInterpreter(save_program(build, {"x": X}, tmp_path / "odd.mlpackage", "iOS15"))
    expected = ("cond", "crop_resize", "random_normal", "random_uniform")
    assert interpreter.unknown_operations() == expected
    assert [tensor.name for tensor in interpreter.inputs] == ["x"]
    with pytest.raises(TargetError) as caught:
        interpreter.run({"x": X})
    assert caught.value.found == ", ".join(expected)


def test_what_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no Core ML package"):
        MilInterpreter(tmp_path / "absent.mlpackage")
    with pytest.raises(ArtifactError, match="no Core ML package"):
        MilInterpreter(tmp_path)


def test_a_damaged_package_is_refused(package: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mlpackage"
    shutil.copytree(package, broken)
    (broken / "Data" / "com.apple.CoreML" / "model.mlmodel").write_bytes(b"\xff\xfe nothing")
    with pytest.raises(ArtifactError, match="cannot be read"):
        MilInterpreter(broken)
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(ArtifactError, match="cannot be read"):
        MilInterpreter(package)


def test_a_truncated_weight_file_is_refused(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return mb.conv(x=x, weight=random(8, 3, 3, 3), pad_type="same")

    package = save_program(build, {"x": X}, tmp_path / "conv.mlpackage", "iOS15")
    weights = package / "Data" / "com.apple.CoreML" / "weights" / "weight.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="cannot be read"):
        MilInterpreter(package)


def test_an_axis_of_any_size_takes_any_size(tmp_path: Path) -> None:
    path = tmp_path / "flexible.mlpackage"
    with quiet_conversion():
        width = torch.export.Dim("width", min=2, max=64)
        exported = torch.export.export(
            Identity(), (torch.rand(1, 3, 4, 8),), dynamic_shapes={"x": {3: width}}
        ).run_decompositions({})
        shape = (1, 3, 4, ct.RangeDim(2, 64, default=8))
        ct.convert(
            exported,
            inputs=[ct.TensorType(name="x", shape=shape, dtype=np.float32)],
            outputs=[ct.TensorType(name="out")],
            compute_precision=ct.precision.FLOAT32,
        ).save(str(path))
    interpreter = MilInterpreter(path)
    assert interpreter.inputs[0].shape == (1, 3, 4, -1)
    for size in (2, 13):
        x = random(1, 3, 4, size)
        np.testing.assert_allclose(interpreter.run({"x": x})["out"], x * 1.5, rtol=1e-6)
