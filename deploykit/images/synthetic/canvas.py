"""Antialiased shapes on a float picture that also keeps, pixel by pixel, how much of it is person."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Points = NDArray[np.float64]

SUBPIXEL_BITS = 4


class Belongs(Enum):
    """To whom painted pixels belong: a detail belongs to whatever lies under it."""

    PERSON = "person"
    SCENE = "scene"
    DETAIL = "detail"


@dataclass
class Picture:
    """``pixels`` (size, size, 3) RGB in 0..1 and ``coverage`` (size, size): the person's share of each pixel."""

    pixels: Floats
    coverage: Floats

    @property
    def size(self) -> int:
        """Side of the square picture in pixels."""
        return int(self.coverage.shape[0])


@dataclass(frozen=True)
class Region:
    """A shape cut out of the picture: rows and columns of its box, and ``alpha`` (h, w) in 0..1 inside it."""

    rows: slice
    columns: slice
    alpha: Floats

    def grid(self, size: int) -> tuple[Floats, Floats]:
        """Return x and y of the box's pixel centres as fractions of the picture's side."""
        y, x = np.mgrid[self.rows, self.columns].astype(np.float32)
        return (x + 0.5) / size, (y + 0.5) / size

    def paint(
        self,
        picture: Picture,
        color: Floats,
        belongs: Belongs = Belongs.DETAIL,
        opacity: float = 1.0,
    ) -> None:
        """Blend ``color`` (3,) or (h, w, 3) into ``picture`` where the region lies."""
        alpha = self.alpha if opacity == 1.0 else self.alpha * np.float32(opacity)
        patch = picture.pixels[self.rows, self.columns]
        patch += alpha[:, :, None] * (color - patch)
        if belongs is not Belongs.DETAIL:
            coverage = picture.coverage[self.rows, self.columns]
            target = 1.0 if belongs is Belongs.PERSON else 0.0
            coverage += alpha * (np.float32(target) - coverage)


def smooth(points: Points, steps: int = 5) -> Points:
    """Return the closed Catmull-Rom curve through ``points`` (n, 2), ``steps`` per corner."""
    p0, p1, p2, p3 = (np.roll(points, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    t = (np.arange(steps) / steps)[None, :, None]
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return np.asarray(curve.reshape(-1, 2))


def ellipse(center: Points, radii: tuple[float, float], angle: float = 0.0, count: int = 20) -> Points:
    """Return ``count`` points of an ellipse, ``angle`` in radians."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x, y = radii[0] * np.cos(turn), radii[1] * np.sin(turn)
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([center[0] + c * x - s * y, center[1] + s * x + c * y], axis=1)


def capsule(start: Points, end: Points, radius_start: float, radius_end: float) -> Points:
    """Return the outline of a tapered limb between two points."""
    turn = np.arctan2(end[1] - start[1], end[0] - start[0])
    half = np.linspace(-np.pi / 2, np.pi / 2, 8)
    front = end + radius_end * np.stack([np.cos(turn + half), np.sin(turn + half)], axis=1)
    back = start + radius_start * np.stack([np.cos(turn + np.pi + half), np.sin(turn + np.pi + half)], axis=1)
    return np.concatenate([front, back])


def box(x0: float, y0: float, x1: float, y1: float, angle: float = 0.0) -> Points:
    """Return the four corners of a rectangle turned by ``angle`` radians about its centre."""
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    middle = corners.mean(axis=0)
    c, s = np.cos(angle), np.sin(angle)
    return np.asarray((corners - middle) @ np.array([[c, s], [-s, c]]) + middle)


def fill(size: int, points: Points, blur: float = 0.0) -> Region | None:
    """Return the region inside closed ``points`` (fractions of the side), or None outside the picture.

    ``blur`` is the standard deviation of the edge's softness, as a fraction of the side.
    """
    pixels = points * size
    margin = 2 + 3 * blur * size
    low = np.maximum(np.floor(pixels.min(axis=0) - margin), 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(axis=0) + margin), size).astype(int)
    if (high <= low).any():
        return None
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round((pixels - low - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, SUBPIXEL_BITS)
    if blur * size > 0.3:
        mask = cv2.GaussianBlur(mask, (0, 0), blur * size)
    alpha = mask.astype(np.float32) / np.float32(255)
    return Region(slice(low[1], high[1]), slice(low[0], high[0]), alpha)


def stroke(size: int, points: Points, width: float) -> Region | None:
    """Return the region of an open line through ``points``; widths under a pixel thin out in opacity."""
    pixels = points * size
    thickness = max(1, round(width * size))
    low = np.maximum(np.floor(pixels.min(axis=0) - thickness - 2), 0).astype(int)
    high = np.minimum(np.ceil(pixels.max(axis=0) + thickness + 2), size).astype(int)
    if (high <= low).any():
        return None
    mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
    fixed = np.round((pixels - low - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)
    cv2.polylines(mask, [fixed], False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    alpha = mask.astype(np.float32) * np.float32(min(1.0, width * size) / 255)
    return Region(slice(low[1], high[1]), slice(low[0], high[0]), alpha)


def field(rng: np.random.Generator, shape: tuple[int, ...], cells_y: int, cells_x: int) -> Floats:
    """Return smooth noise of ``shape`` (height, width), of about unit deviation with the given number of cells."""
    grid = rng.standard_normal((cells_y + 1, cells_x + 1), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (shape[1], shape[0]), interpolation=cv2.INTER_CUBIC), np.float32)


def jitter(rng: np.random.Generator, color: Floats, amount: float) -> Floats:
    """Return ``color`` with each channel moved by a normal step of deviation ``amount``, kept in 0..1."""
    return np.clip(color + rng.normal(0, amount, 3), 0.02, 0.98).astype(np.float32)


def rgb(*channels: float) -> Floats:
    """Return a colour (3,) in 0..1."""
    return np.array(channels, np.float32)
