from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random, run_program
from interpreter_references import ramp
from scipy import ndimage

X = random(2, 3, 5, 7)
GRID = random(2, 4, 6, 2, seed=1, low=-1.7, high=1.7)
BORDERS = {"constant": "grid-constant", "border": "nearest", "reflection": "mirror", "symmetric": "reflect"}
SPANS: dict[str, Callable[[np.ndarray, int, bool], np.ndarray]] = {
    "unnormalized": lambda grid, size, aligned: grid,
    "normalized_zero_to_one": lambda grid, size, aligned: grid * (size - 1) if aligned else grid * size - 0.5,
    "normalized_minus_one_to_one": lambda grid, size, aligned: (
        (grid + 1) / 2 * (size - 1) if aligned else ((grid + 1) * size - 1) / 2
    ),
}


def read(rows: np.ndarray, columns: np.ndarray, order: int, border: str, value: float) -> np.ndarray:
    """Each plane of X read at ``rows`` and ``columns`` (batch, height, width)."""
    how = {"order": order, "mode": BORDERS[border], "cval": value}
    return np.stack(
        [
            [ndimage.map_coordinates(plane, [rows[b], columns[b]], **how) for plane in X[b].astype(np.float64)]
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

    def expected() -> np.ndarray:
        columns = SPANS[mode](grid[..., 0].astype(np.float64), 7, aligned)
        rows = SPANS[mode](grid[..., 1].astype(np.float64), 5, aligned)
        return read(rows, columns, 1 if sampling == "bilinear" else 0, border, float(value))

    label = f"{sampling} {border} {mode} {aligned}"
    return Case("resample", label, build, {"x": X, "grid": grid}, expected, tolerance=2e-5)


MATRIX = np.array([[0.9, -0.3, 0.1, 0.2, 1.1, -0.4], [1.2, 0.1, 0.3, -0.2, 0.8, 0.1]], np.float32)
FIXED: dict[str, Any] = {
    "sampling_mode": "bilinear",
    "padding_mode": "constant",
    "padding_value": 0.0,
    "coordinates_mode": "normalized_minus_one_to_one",
    "align_corners": True,
}


def transformed(matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """The affine transform as documented: output pixel, its position in [-1, 1], where that is read."""
    matrix = np.broadcast_to(matrix.astype(np.float64), (2, 6))
    v, u = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    columns, rows = (
        np.stack([a * u + b * v + c for a, b, c in matrix[:, part]]) for part in (slice(0, 3), slice(3, 6))
    )
    return read((rows + 1) / 2 * 4, (columns + 1) / 2 * 6, 1, "constant", 0.0)


def _affine(label: str, matrix: np.ndarray) -> Case:
    def build(x: Any) -> Any:
        return mb.affine(x=x, transform_matrix=matrix, output_height=6, output_width=8, **FIXED)

    return Case("affine", label, build, {"x": X}, lambda: transformed(matrix, 6, 8), tolerance=2e-5)


CASES = [
    *[
        _resample("bilinear", border, "normalized_minus_one_to_one", aligned)
        for border in BORDERS
        for aligned in (True, False)
    ],
    *[_resample("nearest", border, "normalized_minus_one_to_one", False) for border in BORDERS],
    _resample("bilinear", "border", "normalized_zero_to_one", True),
    _resample("bilinear", "constant", "normalized_zero_to_one", False),
    *[_resample("bilinear", border, "unnormalized", True, 6 * GRID) for border in BORDERS],
    _affine("one matrix", MATRIX[:1]),
    _affine("a matrix for each image", MATRIX),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("kind", [np.float16, np.int32, np.int16, np.uint8])
def test_coordinates_may_have_other_types(kind: Any) -> None:
    target = "iOS16" if kind is np.float16 else "iOS17"
    grid = np.array([[[[0, 0], [6, 4], [3, 2]]]], kind)

    def build(x: Any) -> Any:
        fixed = FIXED | {"coordinates_mode": "unnormalized"}
        return mb.resample(x=x, coordinates=grid, **fixed)

    (found,) = run_program(build, {"x": ramp(5, 7)}, target)
    np.testing.assert_array_equal(found, [[[[0, 46, 23]]]])


# How a pixel's position p among n is written, by coordinates mode and align_corners.
WRITTEN: dict[tuple[str, bool], Callable[[np.ndarray, int], np.ndarray]] = {
    ("unnormalized", True): lambda p, n: p,
    ("unnormalized", False): lambda p, n: p,
    ("normalized_zero_to_one", True): lambda p, n: p / (n - 1),
    ("normalized_zero_to_one", False): lambda p, n: (2 * p + 1) / (2 * n),
    ("normalized_minus_one_to_one", True): lambda p, n: 2 * p / (n - 1) - 1,
    ("normalized_minus_one_to_one", False): lambda p, n: (2 * p + 1) / n - 1,
}


def _ramp_read(mode: str, aligned: bool, grid: np.ndarray) -> np.ndarray:
    def build(x: Any, grid: Any) -> Any:
        fixed = FIXED | {"coordinates_mode": mode, "align_corners": aligned}
        return mb.resample(x=x, coordinates=grid, **fixed)

    (found,) = run_program(build, {"x": ramp(5, 7), "grid": grid.astype(np.float32)})
    return np.asarray(found[0, 0])


@pytest.mark.parametrize(("mode", "aligned"), WRITTEN)
def test_a_ramp_shows_where_a_coordinate_points(mode: str, aligned: bool) -> None:
    rows, columns = np.meshgrid([0.0, 1.25, 3.5, 4.0], [0.0, 0.75, 2.5, 5.125, 6.0], indexing="ij")
    grid = np.stack([WRITTEN[mode, aligned](columns, 7), WRITTEN[mode, aligned](rows, 5)], -1)[None]
    np.testing.assert_allclose(_ramp_read(mode, aligned, grid), 10 * rows + columns, atol=1e-4)
    if mode != "unnormalized":
        assert np.abs(_ramp_read(mode, not aligned, grid) - (10 * rows + columns)).max() > 0.3


def test_a_ramp_stays_where_it_is_under_the_identity_and_moves_with_a_shift() -> None:
    half_a_pixel = 0.5 / 3  # six steps of a pixel span [-1, 1] along the rows
    shifted = np.array([[1, 0, half_a_pixel, 0, 1, 0]], np.float32)

    def build(x: Any) -> Any:
        sizes = {"output_height": 5, "output_width": 7}
        still = mb.affine(x=x, transform_matrix=np.array([[1, 0, 0, 0, 1, 0]], np.float32), **sizes, **FIXED)
        return still, mb.affine(x=x, transform_matrix=shifted, **sizes, **FIXED)

    still, moved = run_program(build, {"x": ramp(5, 7)})
    np.testing.assert_allclose(still, ramp(5, 7), atol=1e-4)
    np.testing.assert_allclose(moved[..., :-1], ramp(5, 7)[..., :-1] + 0.5, atol=1e-4)
