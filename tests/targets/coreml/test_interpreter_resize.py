from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random, run_program
from interpreter_references import MODES, interpolated, onnx_resized, positions, ramp

from deploykit.targets.coreml.interpreter.ops_resize import grid_points

# The examples in the reference of MIL operations: two pixels resized to five and to six, to two decimals.
DOCUMENTED = {
    ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
    ("STRICT_ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("UNALIGN_CORNERS", 6): [0.0, 0.0, 0.33, 0.67, 1.0, 1.0],
    ("STRICT_ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    ("DEFAULT", 6): [0.0, 0.33, 0.67, 1.0, 1.0, 1.0],
    ("OFFSET_CORNERS", 6): [0.08, 0.25, 0.42, 0.58, 0.75, 0.92],
}

X = random(2, 3, 5, 7)
RAMP = ramp(5, 7)
HALF = np.float32(1.5)


@pytest.mark.parametrize(("mode", "target"), DOCUMENTED, ids=str)
def test_the_grid_is_the_documented_one(mode: str, target: int) -> None:
    np.testing.assert_allclose(grid_points(mode, 2, target).numpy(), DOCUMENTED[mode, target], atol=0.0051)
    np.testing.assert_allclose(positions(mode, 2, target), DOCUMENTED[mode, target], atol=0.0051)


def case(
    name: str, label: str, expected: Callable[[np.ndarray], Any], target: str, x: np.ndarray = X, **parameters: Any
) -> Case:
    def build(x: Any) -> Any:
        return getattr(mb, name)(x=x, **parameters)

    return Case(name, label, build, {"x": x}, lambda: expected(x), target, 1e-5)


def linear(mode: str, height: int, width: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: interpolated(x, mode, height, width)


def by_onnx(height: int, width: int, transformation: str, **attributes: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Linear unless ``mode`` says otherwise."""
    attributes = {"mode": "linear"} | attributes
    return lambda x: onnx_resized(x, (height, width), coordinate_transformation_mode=transformation, **attributes)


def _bilinear(mode: str, height: int, width: int) -> Case:
    parameters = {"target_size_height": height, "target_size_width": width, "sampling_mode": mode}
    return case("resize_bilinear", f"{mode} {height}x{width}", linear(mode, height, width), "iOS15", **parameters)


def _upsampled(label: str, expected: Callable[[np.ndarray], Any], target: str = "iOS15", **parameters: Any) -> Case:
    return case("upsample_bilinear", label, expected, target, **parameters)


def _resize(label: str, expected: Callable[[np.ndarray], Any], shape: list[int], **parameters: Any) -> Case:
    return case("resize", label, expected, "iOS17", shape=shape, resized_dims=np.uint32(2), **parameters)


def _scales(height: Any, width: Any) -> dict[str, Any]:
    return {"scale_factor_height": height, "scale_factor_width": width}


def nearest(x: np.ndarray) -> np.ndarray:
    """Eight rows and three columns, each the pixel that its start falls into."""
    return x[:, :, np.arange(8) * 5 // 8][:, :, :, np.arange(3) * 7 // 3]


NEAREST = {"mode": "nearest", "nearest_mode": "floor"}
CASES = [
    *[_bilinear(mode, height, width) for mode in MODES for height, width in ((10, 11), (3, 4), (5, 7), (1, 1))],
    _upsampled("align_corners", by_onnx(10, 14, "align_corners"), **_scales(2, 2), align_corners=True),
    _upsampled("align_corners is the default", by_onnx(10, 21, "align_corners"), **_scales(2, 3)),
    _upsampled("half pixels", by_onnx(10, 21, "half_pixel"), **_scales(2, 3), align_corners=False),
    _upsampled("fraction", linear("UNALIGN_CORNERS", 7, 10), **_scales(HALF, HALF), align_corners=False),
    _upsampled("fraction, aligned", linear("STRICT_ALIGN_CORNERS", 7, 10), **_scales(HALF, HALF), align_corners=True),
    _upsampled(
        "neither",
        by_onnx(10, 14, "asymmetric"),
        "iOS16",
        **_scales(2, 2),
        align_corners=False,
        half_pixel_centers=False,
    ),
    case("upsample_nearest_neighbor", "integer", lambda x: x.repeat(2, 2).repeat(3, 3), "iOS15", **_scales(2, 3)),
    case(
        "upsample_nearest_neighbor",
        "fraction",
        lambda x: x[:, :, [0, 0, 1, 2, 2, 3, 4]][:, :, :, [0, 0, 1, 2, 2, 3, 4, 4, 5, 6]],
        "iOS15",
        **_scales(HALF, HALF),
    ),
    case("resize_nearest_neighbor", "", nearest, "iOS15", target_size_height=8, target_size_width=3),
    case(
        "resize_nearest_neighbor",
        "asymmetric",
        by_onnx(9, 14, "asymmetric", **NEAREST),
        "iOS15",
        target_size_height=9,
        target_size_width=14,
    ),
    *[_resize(f"linear {mode}", linear(mode, 9, 4), [9, 4], sampling_mode=mode) for mode in MODES],
    _resize("keeps an axis", linear("DEFAULT", 5, 9), [1, 0, 9], sampling_mode="DEFAULT"),
    _resize("nearest", nearest, [8, 3], interpolation_mode="NEAREST_NEIGHBOR"),
    _resize(
        "nearest, half pixels",
        by_onnx(8, 3, "half_pixel", mode="nearest", nearest_mode="round_prefer_ceil"),
        [8, 3],
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode="UNALIGN_CORNERS",
    ),
    _resize(
        "nearest, aligned",
        by_onnx(8, 3, "align_corners", mode="nearest", nearest_mode="round_prefer_ceil"),
        [8, 3],
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode="ALIGN_CORNERS",
    ),
    case(
        "resize",
        "one axis",
        lambda x: interpolated(x, "UNALIGN_CORNERS", 5, 3),
        "iOS17",
        shape=[3],
        resized_dims=np.uint32(1),
        sampling_mode="UNALIGN_CORNERS",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


# Every resizing operation in every mode, with the sampling mode that it stands for: name, parameters, mode, opset.
UP = _scales(2, 2)
SIZE = {"target_size_height": 10, "target_size_width": 14}
TO = {"shape": [10, 14], "resized_dims": np.uint32(2)}
RAMPS: list[tuple[str, dict[str, Any], str, str]] = [
    *[("resize_bilinear", SIZE | {"sampling_mode": mode}, mode, "iOS15") for mode in MODES],
    *[("resize", TO | {"sampling_mode": mode}, mode, "iOS17") for mode in MODES],
    ("upsample_bilinear", UP | {"align_corners": True}, "STRICT_ALIGN_CORNERS", "iOS15"),
    ("upsample_bilinear", UP | {"align_corners": False}, "UNALIGN_CORNERS", "iOS15"),
    ("upsample_bilinear", UP | {"align_corners": False, "half_pixel_centers": True}, "UNALIGN_CORNERS", "iOS16"),
    ("upsample_bilinear", UP | {"align_corners": False, "half_pixel_centers": False}, "DEFAULT", "iOS16"),
]
NEAREST_RAMPS: list[tuple[str, dict[str, Any], str]] = [
    ("resize_nearest_neighbor", SIZE, "iOS15"),
    ("upsample_nearest_neighbor", UP, "iOS15"),
    ("resize", TO | {"interpolation_mode": "NEAREST_NEIGHBOR"}, "iOS17"),
]


def _ramp_resized(name: str, parameters: dict[str, Any], target: str) -> np.ndarray:
    (found,) = run_program(lambda x: getattr(mb, name)(x=x, **parameters), {"x": RAMP}, target)
    return np.asarray(found[0, 0])


@pytest.mark.parametrize(("name", "parameters", "mode", "target"), RAMPS)
def test_a_ramp_shows_where_each_sample_was_taken(
    name: str, parameters: dict[str, Any], mode: str, target: str
) -> None:
    found = _ramp_resized(name, parameters, target)
    expected = 10 * positions(mode, 5, 10)[:, None] + positions(mode, 7, 14)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("name", "parameters", "target"), NEAREST_RAMPS)
def test_a_ramp_shows_which_pixel_was_taken(name: str, parameters: dict[str, Any], target: str) -> None:
    found = _ramp_resized(name, parameters, target)
    np.testing.assert_array_equal(found, 10 * (np.arange(10) // 2)[:, None] + np.arange(14) // 2)


@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "DEFAULT"])
def test_another_sampling_mode_fails(mode: str) -> None:
    wrong = case("resize_bilinear", "", linear("DEFAULT", 10, 14), "iOS15", RAMP, **SIZE, sampling_mode=mode)
    with pytest.raises(AssertionError):
        check(wrong)
