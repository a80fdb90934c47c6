"""The ways in which a file may bring a picture to the network's size: rules, filters and pixel centres, in floats.

OpenCV's own resize rounds 8-bit pixels to 8 bits again; a file computes in floats, so that these do too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.recipe import Input

Picture = NDArray[np.floating]
Geometry = Callable[[Picture], Picture]
_FILTERS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}


def resized(picture: Picture, height: int, width: int, name: str) -> Picture:
    """Return ``picture`` (h, w, 3) at another size by OpenCV's filter ``name``, pixel centres at half."""
    return np.asarray(cv2.resize(picture, (width, height), interpolation=_FILTERS[name]), np.float64)


def letterboxed(picture: Picture, height: int, width: int, name: str, pad: float) -> Picture:
    """Return ``picture`` (h, w, 3) with its aspect ratio kept, in the middle of a border of ``pad``."""
    rows, columns = picture.shape[:2]
    ratio = min(height / rows, width / columns)
    inner = (max(1, round(rows * ratio)), max(1, round(columns * ratio)))
    canvas = np.full((height, width, 3), pad, np.float64)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    canvas[top : top + inner[0], left : left + inner[1]] = resized(picture, *inner, name)
    return canvas


def cropped(picture: Picture, height: int, width: int, name: str) -> Picture:
    """Return the middle of ``picture`` (h, w, 3), as large as its aspect ratio allows, at another size."""
    rows, columns = picture.shape[:2]
    ratio = min(rows / height, columns / width)
    inner = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
    return resized(picture[top : top + inner[0], left : left + inner[1]], height, width, name)


def sampled(picture: Picture, rows: Picture, columns: Picture) -> Picture:
    """Return ``picture`` (h, w, 3) read bilinearly at ``rows`` x ``columns``, in pixels from the first one's centre."""
    top, bottom, down = _neighbours(rows, picture.shape[0])
    left, right, across = _neighbours(columns, picture.shape[1])
    upper = picture[top][:, left] * (1 - across)[None, :, None] + picture[top][:, right] * across[None, :, None]
    lower = picture[bottom][:, left] * (1 - across)[None, :, None] + picture[bottom][:, right] * across[None, :, None]
    return np.asarray(upper * (1 - down)[:, None, None] + lower * down[:, None, None])


def _neighbours(places: Picture, size: int) -> tuple[NDArray[np.intp], NDArray[np.intp], Picture]:
    inside = np.clip(places, 0, size - 1)
    below = np.floor(inside).astype(np.intp)
    return below, np.minimum(below + 1, size - 1), inside - below


def fitted(picture: Picture, spec: Input) -> Picture:
    """Return ``picture`` (h, w, 3) at the size of ``spec`` by its own rule, in floats."""
    if spec.resize.rule == "letterbox":
        return letterboxed(picture, spec.height, spec.width, spec.resize.filter, spec.resize.pad_value)
    return resized(picture, spec.height, spec.width, spec.resize.filter)


def other_resizes(spec: Input) -> dict[str, Geometry]:
    """Return what a file that resizes by itself may do instead of the rule of ``spec``, by name."""
    height, width = spec.height, spec.width

    def from_corner(size: int, source: int) -> Picture:
        return np.arange(size) * (source / size)

    def by_corners(size: int, source: int) -> Picture:
        return np.linspace(0, source - 1, size)

    def grid(places: Callable[[int, int], Picture]) -> Geometry:
        return lambda x: sampled(x, places(height, x.shape[0]), places(width, x.shape[1]))

    def nearest(size: int, source: int) -> Picture:
        return np.asarray(np.floor(from_corner(size, source) + source / size / 2))

    found: dict[str, Geometry] = {
        f"the picture is stretched by the {name} filter": partial(resized, height=height, width=width, name=name)
        for name in _FILTERS
    }
    found["the resize is shifted by half a pixel: pixel centres lie at whole numbers"] = grid(from_corner)
    found["the resize aligns the corners (align_corners)"] = grid(by_corners)
    found["the picture is resized by the nearest filter with pixel centres at half"] = grid(nearest)
    for pad in dict.fromkeys((0, 128, 114, 127, 255, spec.resize.pad_value)):
        found[f"the picture is letterboxed with a border of {pad}"] = partial(
            letterboxed, height=height, width=width, name="bilinear", pad=pad
        )
    found["the middle of the picture is cropped"] = partial(cropped, height=height, width=width, name="bilinear")
    return found


def other_placements() -> dict[str, Geometry]:
    """Return what a file may do to a picture that has the right size already, by name."""

    def shifted(x: Picture, by: float) -> Picture:
        return sampled(x, np.arange(x.shape[0]) + by, np.arange(x.shape[1]) + by)

    return {
        "the picture is shifted by half a pixel up and to the left": lambda x: shifted(x, 0.5),
        "the picture is shifted by half a pixel down and to the right": lambda x: shifted(x, -0.5),
        "the picture is mirrored left to right": lambda x: x[:, ::-1],
        "the picture is upside down": lambda x: x[::-1],
        "rows and columns are exchanged": lambda x: x.transpose(1, 0, 2) if x.shape[0] == x.shape[1] else x,
    }
