from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random, run_program
from scipy import ndimage

from deploykit.targets.coreml.interpreter.ops_resize import RESIZE, grid_points

MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")
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
ROWS, COLUMNS = np.meshgrid(np.arange(5.0), np.arange(7.0), indexing="ij")
RAMP = (10 * ROWS + COLUMNS).astype(np.float32)[None, None]


@pytest.mark.parametrize(("mode", "target"), DOCUMENTED, ids=str)
def test_the_grid_is_the_documented_one(mode: str, target: int) -> None:
    np.testing.assert_allclose(grid_points(mode, 2, target).numpy(), DOCUMENTED[mode, target], atol=0.0051)


def positions(mode: str, size: int, target: int) -> np.ndarray:
    """Where the samples lie, written from the documented formulas one sample at a time."""
    found = []
    for i in range(target):
        if mode == "DEFAULT":
            point = i * (size - size / target) / (target - 1) if target > 1 else 0.0
        elif mode == "OFFSET_CORNERS":
            point = 0.5 * max(1, size - 1) / target + i * max(1, size - 1) / target
        elif mode == "UNALIGN_CORNERS":
            point = i * size / target + 0.5 * size / target - 0.5
        elif target == 1:
            point = (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        else:
            point = i * (size - 1) / (target - 1)
        found.append(min(size - 1, max(0.0, point)))
    return np.array(found)


def interpolated(x: np.ndarray, mode: str, height: int, width: int) -> np.ndarray:
    rows = positions(mode, x.shape[2], height)
    columns = positions(mode, x.shape[3], width)
    grid = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([[ndimage.map_coordinates(plane, grid, order=1, mode="nearest") for plane in image] for image in x])


def _bilinear(mode: str, height: int, width: int, x: np.ndarray = X) -> Case:
    def build(x: Any) -> Any:
        return mb.resize_bilinear(x=x, target_size_height=height, target_size_width=width, sampling_mode=mode)

    return Case(
        "resize_bilinear",
        f"{mode} {height}x{width}",
        build,
        {"x": x},
        lambda: interpolated(x, mode, height, width),
        tolerance=1e-5,
    )


def _torch(x: np.ndarray, **parameters: Any) -> Callable[[], Any]:
    return lambda: F.interpolate(torch.tensor(x), **parameters)


def _scaled(name: str, label: str, expected: Callable[[], Any], target: str = "iOS15", **parameters: Any) -> Case:
    return Case(name, label, lambda x: getattr(mb, name)(x=x, **parameters), {"x": X}, expected, target, 1e-5)


def _resized(label: str, expected: Callable[[], Any], x: np.ndarray = X, **parameters: Any) -> Case:
    return Case("resize", label, lambda x: mb.resize(x=x, **parameters), {"x": x}, expected, "iOS17", 1e-5)


def _two(axes: int) -> Any:
    return np.uint32(axes)


RESIZES = [
    *[_bilinear(mode, height, width) for mode in MODES for height, width in ((10, 11), (3, 4), (5, 7))],
    *[_bilinear(mode, 1, 1) for mode in MODES],
    _scaled(
        "upsample_bilinear",
        "align_corners",
        _torch(X, scale_factor=2, mode="bilinear", align_corners=True),
        scale_factor_height=2,
        scale_factor_width=2,
        align_corners=True,
    ),
    _scaled(
        "upsample_bilinear",
        "half pixels",
        _torch(X, size=(10, 21), mode="bilinear", align_corners=False),
        scale_factor_height=2,
        scale_factor_width=3,
        align_corners=False,
    ),
    _scaled(
        "upsample_bilinear",
        "fraction",
        _torch(X, size=(7, 10), mode="bilinear", align_corners=False),
        scale_factor_height=np.float32(1.5),
        scale_factor_width=np.float32(1.5),
        align_corners=False,
    ),
    _scaled(
        "upsample_bilinear",
        "neither",
        lambda: interpolated(X, "DEFAULT", 10, 14),
        "iOS16",
        scale_factor_height=2,
        scale_factor_width=2,
        align_corners=False,
        half_pixel_centers=False,
    ),
    _scaled(
        "upsample_nearest_neighbor",
        "integer",
        lambda: X.repeat(2, 2).repeat(3, 3),
        scale_factor_height=2,
        scale_factor_width=3,
    ),
    _scaled(
        "upsample_nearest_neighbor",
        "fraction",
        _torch(X, size=(7, 10), mode="nearest"),
        scale_factor_height=np.float32(1.5),
        scale_factor_width=np.float32(1.5),
    ),
    _scaled(
        "resize_nearest_neighbor",
        "",
        _torch(X, size=(8, 3), mode="nearest"),
        target_size_height=8,
        target_size_width=3,
    ),
    _resized(
        "linear",
        lambda: interpolated(X, "UNALIGN_CORNERS", 9, 4),
        shape=[9, 4],
        resized_dims=_two(2),
        sampling_mode="UNALIGN_CORNERS",
    ),
    _resized(
        "keeps an axis",
        lambda: interpolated(X, "DEFAULT", 5, 9),
        shape=[1, 0, 9],
        resized_dims=_two(2),
        sampling_mode="DEFAULT",
    ),
    _resized(
        "nearest",
        _torch(X, size=(8, 3), mode="nearest"),
        shape=[8, 3],
        resized_dims=_two(2),
        interpolation_mode="NEAREST_NEIGHBOR",
    ),
    _resized(
        "nearest, half pixels",
        _torch(X, size=(8, 3), mode="nearest-exact"),
        shape=[8, 3],
        resized_dims=_two(2),
        interpolation_mode="NEAREST_NEIGHBOR",
        sampling_mode="UNALIGN_CORNERS",
    ),
]


GRID = random(2, 4, 6, 2, seed=1, low=-1.7, high=1.7)
BORDERS = {"constant": "grid-constant", "border": "nearest", "reflection": "mirror", "symmetric": "reflect"}
SPANS = {
    "unnormalized": lambda grid, size, aligned: grid,
    "normalized_zero_to_one": lambda grid, size, aligned: grid * (size - 1) if aligned else grid * size - 0.5,
    "normalized_minus_one_to_one": lambda grid, size, aligned: (
        (grid + 1) / 2 * (size - 1) if aligned else ((grid + 1) * size - 1) / 2
    ),
}


def resampled(grid: np.ndarray, sampling: str, border: str, mode: str, aligned: bool, value: float) -> np.ndarray:
    columns = SPANS[mode](grid[..., 0].astype(np.float64), 7, aligned)
    rows = SPANS[mode](grid[..., 1].astype(np.float64), 5, aligned)
    order = 1 if sampling == "bilinear" else 0
    return np.stack(
        [
            [
                ndimage.map_coordinates(
                    plane.astype(np.float64), [rows[b], columns[b]], order=order, mode=BORDERS[border], cval=value
                )
                for plane in X[b]
            ]
            for b in range(2)
        ]
    )


def _resample(sampling: str, border: str, mode: str, aligned: bool, grid: np.ndarray = GRID) -> Case:
    value = np.float32(0.75)

    def build(x: Any, grid: Any) -> Any:
        return mb.resample(
            x=x,
            coordinates=grid,
            sampling_mode=sampling,
            padding_mode=border,
            padding_value=value,
            coordinates_mode=mode,
            align_corners=aligned,
        )

    return Case(
        "resample",
        f"{sampling} {border} {mode} {aligned}",
        build,
        {"x": X, "grid": grid},
        lambda: resampled(grid, sampling, border, mode, aligned, float(value)),
        tolerance=2e-5,
    )


MATRIX = np.array([[0.9, -0.3, 0.1, 0.2, 1.1, -0.4]], np.float32)


def _affine_reference() -> Any:
    theta = torch.tensor(MATRIX).reshape(1, 2, 3).expand(2, 2, 3)
    grid = F.affine_grid(theta, [2, 3, 6, 8], align_corners=True)
    return F.grid_sample(torch.tensor(X), grid, padding_mode="zeros", align_corners=True)


RESAMPLES = [
    *[
        _resample("bilinear", border, "normalized_minus_one_to_one", aligned)
        for border in BORDERS
        for aligned in (True, False)
    ],
    *[_resample("nearest", border, "normalized_minus_one_to_one", False) for border in BORDERS],
    _resample("bilinear", "border", "normalized_zero_to_one", True),
    _resample("bilinear", "constant", "normalized_zero_to_one", False),
    *[_resample("bilinear", border, "unnormalized", True, 6 * GRID) for border in BORDERS],
    Case(
        "affine",
        "",
        lambda x: mb.affine(
            x=x,
            transform_matrix=MATRIX,
            output_height=6,
            output_width=8,
            sampling_mode="bilinear",
            padding_mode="constant",
            padding_value=0.0,
            coordinates_mode="normalized_minus_one_to_one",
            align_corners=True,
        ),
        {"x": X},
        _affine_reference,
        tolerance=1e-5,
    ),
]

CASES = [*RESIZES, *RESAMPLES]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} == set(RESIZE)


@pytest.mark.parametrize("mode", MODES)
def test_a_ramp_shows_where_each_sample_was_taken(mode: str) -> None:
    def build(x: Any) -> Any:
        return mb.resize_bilinear(x=x, target_size_height=10, target_size_width=14, sampling_mode=mode)

    (found,) = run_program(build, {"x": RAMP})
    expected = 10 * positions(mode, 5, 10)[:, None] + positions(mode, 7, 14)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-5)


def test_a_shift_by_half_a_pixel_fails() -> None:
    case = _bilinear("UNALIGN_CORNERS", 10, 14, RAMP)
    shifted = Case(case.operation, "shifted", case.build, case.inputs, lambda: interpolated(RAMP, "DEFAULT", 10, 14))
    check(case)
    with pytest.raises(AssertionError):
        check(shifted)


def test_resample_agrees_with_grid_sample() -> None:
    case = _resample("bilinear", "symmetric", "normalized_minus_one_to_one", False)
    expected = F.grid_sample(torch.tensor(X), torch.tensor(GRID), padding_mode="reflection", align_corners=False)
    (found,) = run_program(case.build, case.inputs)
    np.testing.assert_allclose(found, expected, atol=1e-5)
