"""The operators of the reference executor against ONNX's own slow ones, over their parameters, and its mistakes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from deploykit.targets.onnx.reference import evaluate

RAMP = np.arange(2 * 5 * 7, dtype=np.float32).reshape(1, 2, 5, 7)


def _model(kind: str, inputs: dict[str, np.ndarray], names: list[str], **attributes: Any) -> onnx.ModelProto:
    given = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in inputs.items()
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node(kind, names, ["y"], **attributes)], "one", given, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


def _both(
    kind: str, inputs: dict[str, np.ndarray], names: list[str], **attributes: Any
) -> tuple[np.ndarray, np.ndarray]:
    model = _model(kind, inputs, names, **attributes)
    return evaluate(model, inputs)["y"], np.asarray(ReferenceEvaluator(model).run(None, inputs)[0])


def _noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"])
@pytest.mark.parametrize("size", [(10, 14), (3, 4), (1, 9), (5, 11)])
def test_resizing_to_a_size(mode: str, coordinates: str, size: tuple[int, int]) -> None:
    inputs = {"x": RAMP, "sizes": np.array([1, 2, *size], np.int64)}
    options = {"mode": mode, "coordinate_transformation_mode": coordinates}
    ours, theirs = _both("Resize", inputs, ["x", "", "", "sizes"], **options)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-5)


def test_every_rule_of_coordinates_gives_something_else() -> None:
    inputs = {"x": RAMP, "sizes": np.array([1, 2, 10, 14], np.int64)}
    rules = ("half_pixel", "align_corners", "asymmetric")
    found = [
        evaluate(
            _model("Resize", inputs, ["x", "", "", "sizes"], mode="linear", coordinate_transformation_mode=rule), inputs
        )
        for rule in rules
    ]
    for one, other in itertools.combinations(found, 2):
        assert np.abs(one["y"] - other["y"]).max() > 0.4


@pytest.mark.parametrize("rule", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_resizing_by_scales_to_the_nearest(rule: str) -> None:
    inputs = {"x": RAMP, "scales": np.array([1, 1, 2, 1.5], np.float32)}
    ours, theirs = _both("Resize", inputs, ["x", "", "scales"], mode="nearest", nearest_mode=rule)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "options",
    [
        {"pads": [1, 1, 1, 1]},
        {"pads": [0, 1, 2, 0], "strides": [2, 1]},
        {"pads": [2, 2, 2, 2], "dilations": [2, 2]},
        {"group": 2, "strides": [2, 2]},
        {"auto_pad": "SAME_UPPER"},
    ],
)
def test_convolution(options: dict[str, Any]) -> None:
    weight = _noise(4, 4 // options.get("group", 1), 3, 3)
    inputs = {"x": _noise(1, 4, 7, 8), "w": weight, "b": _noise(4)}
    ours, theirs = _both("Conv", inputs, ["x", "w", "b"], **options)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"strides": [2, 2]},
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
        {"strides": [2, 2], "pads": [1, 0, 0, 1]},
        {"dilations": [2, 1]},
    ],
)
def test_transposed_convolution(options: dict[str, Any]) -> None:
    inputs = {"x": _noise(1, 4, 5, 6), "w": _noise(4, 3, 3, 3), "b": _noise(3)}
    ours, theirs = _both("ConvTranspose", inputs, ["x", "w", "b"], **options)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("corners", [0, 1])
def test_grid_sampling(mode: str, padding: str, corners: int) -> None:
    inputs = {"x": RAMP, "grid": (1.2 * np.tanh(_noise(1, 4, 3, 2))).astype(np.float32)}
    model = _model("GridSample", inputs, ["x", "grid"], mode=mode, padding_mode=padding, align_corners=corners)
    model.opset_import[0].version = 20
    ours = evaluate(model, inputs)["y"]
    np.testing.assert_allclose(ours, ReferenceEvaluator(model).run(None, inputs)[0], rtol=1e-4, atol=1e-4)


def test_half_precision_is_rounded_once() -> None:
    inputs = {"x": _noise(1, 64, 5, 5).astype(np.float16), "w": _noise(2, 64, 3, 3).astype(np.float16)}
    model = _model("Conv", inputs, ["x", "w"])
    exact = _both("Conv", {name: array.astype(np.float32) for name, array in inputs.items()}, ["x", "w"])[1]
    found = evaluate(model, inputs)["y"]
    assert found.dtype == np.float16
    assert np.abs(found - exact).max() <= np.abs(exact).max() * 2.0**-11
