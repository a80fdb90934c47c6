"""Resizing and resampling of images: where each output sample lies in the input, and how it is read there.

Source of the sampling grids: the notes on ``resize_bilinear``, ``upsample_bilinear`` and ``resample`` in the
reference of MIL operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation


def grid_points(mode: str, size: float, target: int) -> Tensor:
    """Return where the ``target`` samples of an axis lie among its ``size`` pixels: (target,) float64.

    ``mode`` is the sampling mode of ``resize_bilinear``; positions are clamped to [0, size - 1]. A box may span a
    fraction of a pixel, or be turned round, so that ``size`` is below 1.
    """
    index = torch.arange(target, dtype=torch.float64)
    if mode in {"STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"}:
        if target == 1:
            return torch.full((1,), (size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0, dtype=torch.float64)
        points = index * ((size - 1) / (target - 1))
    elif mode == "DEFAULT":
        points = index * (size / target)
    elif mode == "OFFSET_CORNERS":
        points = (index + 0.5) * (max(1, size - 1) / target)
    else:
        points = (index + 0.5) * (size / target) - 0.5
    return points.clamp(min(0.0, size - 1), max(0.0, size - 1))


def _linear(x: Tensor, axis: int, points: Tensor) -> Tensor:
    low = points.floor().to(torch.int64)
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    weight = (points - low).to(torch.float32).reshape([-1, *[1] * (x.ndim - 1 - axis % x.ndim)])
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), weight)


def _resized(x: Tensor, sizes: list[int], mode: str, nearest: bool = False) -> Tensor:
    """Return ``x`` with its last axes resized to ``sizes``."""
    x = x.to(torch.float32)
    for axis, target in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        if nearest and mode == "DEFAULT":
            # Integer arithmetic, so that no rounding moves a pixel.
            x = x.index_select(axis, torch.arange(target) * x.shape[axis] // target)
        elif nearest:
            points = grid_points(mode, x.shape[axis], target)
            x = x.index_select(axis, (points + 0.5).floor().to(torch.int64))
        elif target != x.shape[axis] or mode == "OFFSET_CORNERS":
            x = _linear(x, axis, grid_points(mode, x.shape[axis], target))
    return x


def _target_size(arguments: Arguments) -> list[int]:
    return [arguments.integer("target_size_height"), arguments.integer("target_size_width")]


def _scaled_size(arguments: Arguments) -> list[int]:
    # float32, as the converter computes the shape: 10 times 0.7 is 7.
    factors = (arguments.number("scale_factor_height"), arguments.number("scale_factor_width"))
    sizes = arguments.tensor("x").shape[-2:]
    return [int(np.floor(np.float32(factor) * np.float32(size))) for factor, size in zip(factors, sizes, strict=True)]


def _resize_bilinear(arguments: Arguments) -> Tensor:
    return _resized(arguments.tensor("x"), _target_size(arguments), arguments.text("sampling_mode"))


def _resize_nearest_neighbor(arguments: Arguments) -> Tensor:
    return _resized(arguments.tensor("x"), _target_size(arguments), "DEFAULT", nearest=True)


def _upsample_bilinear(arguments: Arguments) -> Tensor:
    aligned = arguments.flag("align_corners")
    centred = arguments.flag("half_pixel_centers", default=not aligned)
    mode = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return _resized(arguments.tensor("x"), _scaled_size(arguments), mode)


def _upsample_nearest_neighbor(arguments: Arguments) -> Tensor:
    return _resized(arguments.tensor("x"), _scaled_size(arguments), "DEFAULT", nearest=True)


def _resize(arguments: Arguments) -> Tensor:
    x, axes = arguments.tensor("x"), arguments.integer("resized_dims")
    wanted = arguments.integers("shape")[-axes:] if axes else []
    sizes = [size or kept for size, kept in zip(wanted, x.shape[x.ndim - axes :], strict=True)]
    nearest = arguments.text("interpolation_mode") == "NEAREST_NEIGHBOR"
    return _resized(x, sizes, arguments.text("sampling_mode"), nearest)


def _pixel_coordinates(coordinates: Tensor, size: int, mode: str, aligned: bool) -> Tensor:
    if mode == "unnormalized":
        return coordinates
    share = (coordinates + 1) / 2 if mode == "normalized_minus_one_to_one" else coordinates
    return share * (size - 1) if aligned else share * size - 0.5


def _folded(points: Tensor, size: int, mode: str) -> Tensor:
    """Return ``points`` brought into the image by its border rule; "constant" leaves them outside."""
    if mode == "constant":
        return points
    if mode == "reflection" and size > 1:
        period = 2 * (size - 1)
        points = points.abs().remainder(period)
        points = torch.minimum(points, period - points)
    elif mode == "symmetric":
        points = (points + 0.5).remainder(2 * size)
        points = torch.minimum(points, 2 * size - points) - 0.5
    return points.clamp(0, size - 1)


def _tap(x: Tensor, rows: Tensor, columns: Tensor, outside: float) -> Tensor:
    """Return the pixels of ``x`` (B, C, H, W) at ``rows`` and ``columns`` (B, h, w), ``outside`` beyond them."""
    height, width = x.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    where = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    flat = where.reshape(x.shape[0], 1, -1).expand(-1, x.shape[1], -1)
    taken = x.flatten(2).gather(2, flat).reshape(*x.shape[:2], *rows.shape[1:])
    return torch.where(inside.unsqueeze(1), taken, outside)


def sampled(x: Tensor, columns: Tensor, rows: Tensor, nearest: bool, outside: float) -> Tensor:
    """Return ``x`` read at real positions in pixels: (B, C, h, w)."""
    if nearest:
        return _tap(x, rows.round().to(torch.int64), columns.round().to(torch.int64), outside)
    top, left = rows.floor(), columns.floor()
    down, right = (rows - top).unsqueeze(1), (columns - left).unsqueeze(1)
    row, column = top.to(torch.int64), left.to(torch.int64)
    upper = torch.lerp(_tap(x, row, column, outside), _tap(x, row, column + 1, outside), right)
    lower = torch.lerp(_tap(x, row + 1, column, outside), _tap(x, row + 1, column + 1, outside), right)
    return torch.lerp(upper, lower, down)


def _read_at(arguments: Arguments, coordinates: Tensor) -> Tensor:
    """Return the input read at ``coordinates`` (B, h, w, 2), x before y, as the arguments interpret them."""
    x, border = arguments.tensor("x"), arguments.text("padding_mode")
    mode, aligned = arguments.text("coordinates_mode"), arguments.flag("align_corners")
    columns, rows = (
        _folded(_pixel_coordinates(coordinates[..., axis], size, mode, aligned), size, border)
        for axis, size in ((0, x.shape[3]), (1, x.shape[2]))
    )
    nearest = arguments.text("sampling_mode") == "nearest"
    return sampled(x, columns, rows, nearest, arguments.number("padding_value"))


def _resample(arguments: Arguments) -> Tensor:
    return _read_at(arguments, arguments.floating("coordinates"))


def _affine(arguments: Arguments) -> Tensor:
    x, matrix = arguments.tensor("x"), arguments.tensor("transform_matrix").reshape(-1, 2, 3)
    size = [x.shape[0], 1, arguments.integer("output_height"), arguments.integer("output_width")]
    matrix = matrix.expand(x.shape[0], 2, 3)
    return _read_at(arguments, F.affine_grid(matrix, size, align_corners=arguments.flag("align_corners")))


RESIZE: Final[Mapping[str, Operation]] = {
    "resize_bilinear": _resize_bilinear,
    "resize_nearest_neighbor": _resize_nearest_neighbor,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest_neighbor,
    "resize": _resize,
    "resample": _resample,
    "affine": _affine,
}
