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

from deploykit.errors import ArtifactError
from deploykit.targets.coreml.interpreter import MilInterpreter

X = random(1, 3, 4, 5)


def _two_steps(x: Any) -> Any:
    return mb.sqrt(x=mb.square(x=x, name="squared"), name="root")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return save_program(_two_steps, {"x": X}, tmp_path / "two.mlpackage", "iOS15")


def test_inputs_and_outputs_are_described(package: Path) -> None:
    interpreter = MilInterpreter(str(package))
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


class Identity(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.5


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


def test_several_inputs_and_outputs_keep_their_names_and_order(tmp_path: Path) -> None:
    def build(a: Any, b: Any, n: Any) -> Any:
        return mb.sub(x=a, y=b), mb.add(x=n, y=1), mb.reduce_sum(x=b, axes=[1])

    given = {"b": random(2, 3, seed=1), "n": np.array([1, 2], np.int32), "a": random(2, 3)}
    path = save_program(build, {name: given[name] for name in ("a", "b", "n")}, tmp_path / "many.mlpackage", "iOS15")
    interpreter = MilInterpreter(path)
    assert [tensor.name for tensor in interpreter.inputs] == ["a", "b", "n"]
    found = interpreter.run(given)
    assert list(found) == ["out0", "out1", "out2"]
    np.testing.assert_array_equal(found["out0"], given["a"] - given["b"])
    np.testing.assert_array_equal(found["out1"], [2, 3])
    np.testing.assert_allclose(found["out2"], given["b"].sum(1), rtol=1e-6)
    assert [found[name].dtype for name in found] == [np.float32, np.int32, np.float32]


def test_an_output_may_depend_on_no_input(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return mb.relu(x=x), mb.const(val=X)

    found = MilInterpreter(save_program(build, {"x": X}, tmp_path / "fixed.mlpackage", "iOS16")).run({"x": X})
    np.testing.assert_array_equal(found["out1"], X)


def test_an_unknown_value_cannot_be_kept(package: Path) -> None:
    with pytest.raises(ArtifactError, match="no such value"):
        MilInterpreter(package).run({"x": X}, keep=["squared", "cubed"])


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
