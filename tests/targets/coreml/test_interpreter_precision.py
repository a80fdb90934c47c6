"""Where a program rounds: to half after each fp16 operation, nowhere else; and not at all when asked not to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import random, save_program

from deploykit.targets.coreml.interpreter import MilInterpreter

X = random(1, 3, 4, 5)
OPSETS = ("iOS15", "iOS16", "iOS17", "iOS18")


def _half(x: Any) -> Any:
    half = mb.cast(x=x, dtype="fp16")
    scaled = mb.mul(x=half, y=np.float16(1.1), name="scaled")
    return mb.cast(x=mb.add(x=scaled, y=np.float16(3.3)), dtype="fp32")


@pytest.mark.parametrize("target", OPSETS)
def test_half_precision_rounds_after_every_operation(target: str, tmp_path: Path) -> None:
    path = save_program(_half, {"x": X}, tmp_path / "half.mlpackage", target)
    expected = X.astype(np.float16) * np.float16(1.1) + np.float16(3.3)
    once = (X.astype(np.float16).astype(np.float32) * np.float16(1.1) + np.float16(3.3)).astype(np.float16)
    found = MilInterpreter(path).run({"x": X})["out0"]
    np.testing.assert_array_equal(found, expected.astype(np.float32))
    assert (expected != once).any()


def test_without_rounding_a_half_precision_program_computes_in_float32(tmp_path: Path) -> None:
    path = save_program(_half, {"x": X}, tmp_path / "half.mlpackage", "iOS16")
    interpreter = MilInterpreter(path, half_rounding=False)
    exact = X * np.float32(np.float16(1.1)) + np.float32(np.float16(3.3))
    np.testing.assert_allclose(interpreter.run({"x": X})["out0"], exact, rtol=1e-6)
    assert (MilInterpreter(path).run({"x": X})["out0"] != exact).any()
    assert {str(value.value.dtype) for value in interpreter.trace({"x": X})} == {"float32"}
    assert interpreter.run({"x": X}, keep=["scaled"])["scaled"].dtype == np.float32
    assert MilInterpreter(path).run({"x": X}, keep=["scaled"])["scaled"].dtype == np.float16


def test_without_rounding_stored_halves_stay_what_they_are(tmp_path: Path) -> None:
    x, weight = X.astype(np.float16), random(2, 3, 1, 1)
    fine = np.float32(1 / 3)

    def build(x: Any) -> Any:
        scale = np.full((2, 1, 1, 1), fine, np.float16)
        stored = np.round(weight * 50).astype(np.int8)
        return mb.conv(x=x, weight=mb.constexpr_blockwise_shift_scale(data=stored, scale=scale), pad_type="valid")

    path = save_program(build, {"x": x}, tmp_path / "half.mlpackage", "iOS18")
    interpreter = MilInterpreter(path, half_rounding=False)
    assert [(tensor.dtype) for tensor in (*interpreter.inputs, *interpreter.outputs)] == ["float16", "float32"]
    # The product of a stored number and a stored scale is a computed value: it keeps its bits as well.
    dense = np.round(weight * 50)[:, :, 0, 0] * np.float32(np.float16(fine))
    expected = np.einsum("nchw,oc->nohw", x.astype(np.float32), dense)
    np.testing.assert_allclose(interpreter.run({"x": x})["out0"], expected, rtol=1e-5, atol=1e-5)
    assert np.abs(MilInterpreter(path).run({"x": x})["out0"] - expected).max() > 1e-3


def test_half_precision_inputs_and_outputs_keep_their_type(tmp_path: Path) -> None:
    x = X.astype(np.float16)
    path = save_program(lambda x: mb.relu(x=x), {"x": x}, tmp_path / "half.mlpackage", "iOS16")
    found = MilInterpreter(path).run({"x": x})["out0"]
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, np.maximum(x, 0))


def test_what_half_precision_cannot_hold_becomes_infinite(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        return mb.cast(x=mb.mul(x=mb.cast(x=x, dtype="fp16"), y=np.float16(60000)), dtype="fp32")

    x = np.array([1.0, 2.0, -2.0], np.float32)
    path = save_program(build, {"x": x}, tmp_path / "large.mlpackage", "iOS15")
    np.testing.assert_array_equal(MilInterpreter(path).run({"x": x})["out0"], [60000, np.inf, -np.inf])
    np.testing.assert_array_equal(
        MilInterpreter(path, half_rounding=False).run({"x": x})["out0"], [60000, 120000, -120000]
    )


def test_a_float32_operation_in_a_half_precision_program_does_not_round(tmp_path: Path) -> None:
    def build(x: Any) -> Any:
        half = mb.cast(x=x, dtype="fp16")
        return mb.mul(x=mb.cast(x=half, dtype="fp32"), y=np.float32(1.1))

    path = save_program(build, {"x": X}, tmp_path / "mixed.mlpackage", "iOS15")
    expected = X.astype(np.float16).astype(np.float32) * np.float32(1.1)
    np.testing.assert_array_equal(MilInterpreter(path).run({"x": X})["out0"], expected)
