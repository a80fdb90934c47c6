"""What stands behind the person: rooms, foliage, streets, lights, textures; and things in the person's colours."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from deploykit.images.synthetic.canvas import (
    Floats,
    Picture,
    Points,
    box,
    capsule,
    ellipse,
    field,
    fill,
    jitter,
    rgb,
    smooth,
)
from deploykit.images.synthetic.fabric import PATTERNS, pattern
from deploykit.images.synthetic.look import Look

Palette = list[Floats]


def _grid(size: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    return (x + 0.5) / size, (y + 0.5) / size


def _pick(palette: Palette, rng: np.random.Generator) -> Floats:
    return jitter(rng, palette[int(rng.integers(len(palette)))], 0.06)


def _put(picture: Picture, points: Points, color: Floats, blur: float = 0.0, opacity: float = 1.0) -> None:
    region = fill(picture.size, points, blur)
    if region is not None:
        region.paint(picture, color, opacity=opacity)


def _gradient(size: int, first: Floats, second: Floats, rng: np.random.Generator) -> Floats:
    x, y = _grid(size)
    turn = rng.uniform(0, 2 * np.pi)
    along = np.clip(0.5 + (x - 0.5) * np.float32(np.cos(turn)) + (y - 0.5) * np.float32(np.sin(turn)), 0, 1)
    return np.asarray(first + (second - first) * along[:, :, None], np.float32)


def _room(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    size = picture.size
    wall = _pick(palette, rng)
    picture.pixels[:] = _gradient(size, wall, np.clip(wall * np.float32(rng.uniform(0.5, 1.3)), 0, 1), rng)
    if rng.random() < 0.3:
        x, y = _grid(size)
        kind = str(rng.choice(PATTERNS))
        picture.pixels[:] = 0.6 * picture.pixels + 0.4 * pattern(rng, kind, x, y, (wall, _pick(palette, rng)))
    for _ in range(int(rng.integers(2, 8))):
        x0, y0 = rng.uniform(-0.1, 0.9), rng.uniform(-0.1, 0.7)
        x1, y1 = x0 + rng.uniform(0.1, 0.45), y0 + rng.uniform(0.1, 0.5)
        tilt = rng.normal(0, 0.03)
        edge = rng.uniform(0.008, 0.025)
        _put(picture, box(x0, y0, x1, y1, tilt), _pick(palette, rng))
        _put(picture, box(x0 + edge, y0 + edge, x1 - edge, y1 - edge, tilt), _pick(palette, rng))
        for _ in range(int(rng.integers(0, 5))):
            at = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)])
            radii = (rng.uniform(0.02, 0.09), rng.uniform(0.02, 0.09))
            _put(picture, smooth(ellipse(at, radii, rng.uniform(0, 3), 7), 3), _pick(palette, rng))
    if rng.random() < 0.45:
        _shelf(picture, palette, rng)
    if rng.random() < 0.35:
        _curtain(picture, palette, rng)


def _shelf(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    left, top, width = rng.uniform(-0.2, 0.7), rng.uniform(0, 0.5), rng.uniform(0.25, 0.7)
    for row in range(int(rng.integers(1, 4))):
        base = top + 0.19 * (row + 1)
        _put(picture, box(left, base, left + width, base + 0.02), _pick(palette, rng) * np.float32(0.6))
        x = left
        while x < left + width:
            thick, tall = rng.uniform(0.015, 0.05), rng.uniform(0.09, 0.16)
            _put(picture, box(x, base - tall, x + thick, base, rng.normal(0, 0.04)), _pick(palette, rng))
            x += thick + (rng.uniform(0, 0.06) if rng.random() < 0.3 else 0.003)


def _curtain(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    left, width = rng.uniform(-0.2, 0.8), rng.uniform(0.2, 0.6)
    region = fill(picture.size, box(left, -0.1, left + width, 1.1))
    if region is None:
        return
    x, y = region.grid(picture.size)
    waves = np.sin(x * np.float32(rng.uniform(60, 160)) + 2 * np.sin(y * np.float32(rng.uniform(1, 6))))
    region.paint(picture, np.asarray(_pick(palette, rng) * (0.8 + 0.25 * waves)[:, :, None], np.float32))


def _foliage(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    size = picture.size
    greens = [
        rgb(0.2, 0.3, 0.12),
        rgb(0.35, 0.45, 0.2),
        rgb(0.1, 0.16, 0.08),
        rgb(0.5, 0.52, 0.25),
        _pick(palette, rng),
    ]
    sky = jitter(rng, rgb(0.75, 0.82, 0.9), 0.08)
    picture.pixels[:] = _gradient(size, sky, _pick(greens, rng), rng)
    for scale, count in ((0.16, 14), (0.07, 40), (0.03, 90)):
        for _ in range(count):
            at = rng.uniform(-0.05, 1.05, 2)
            leaf = ellipse(at, (scale * rng.uniform(0.5, 1.3), scale * rng.uniform(0.2, 0.8)), rng.uniform(0, 3.1), 9)
            _put(picture, leaf, _pick(greens, rng) * np.float32(rng.uniform(0.6, 1.3)))
    for _ in range(int(rng.integers(0, 4))):
        x = rng.uniform(0, 1)
        trunk = capsule(np.array([x, 1.1]), np.array([x + rng.normal(0, 0.1), -0.1]), 0.05, 0.025)
        _put(picture, trunk, jitter(rng, rgb(0.3, 0.22, 0.16), 0.05))


def _street(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    size = picture.size
    picture.pixels[:] = _gradient(size, jitter(rng, rgb(0.7, 0.78, 0.86), 0.1), _pick(palette, rng), rng)
    x0 = -0.1
    while x0 < 1.0:
        width, top = rng.uniform(0.1, 0.35), rng.uniform(-0.1, 0.5)
        wall, glass = _pick(palette, rng), _pick(palette, rng) * np.float32(0.5)
        _put(picture, box(x0, top, x0 + width, 1.1), wall)
        step_x, step_y = rng.uniform(0.03, 0.07), rng.uniform(0.04, 0.09)
        for y in np.arange(top + 0.02, 0.9, step_y):
            for x in np.arange(x0 + 0.01, x0 + width - 0.02, step_x):
                _put(
                    picture,
                    box(float(x), float(y), float(x + 0.6 * step_x), float(y + 0.65 * step_y)),
                    glass * np.float32(rng.uniform(0.7, 1.6)),
                )
        x0 += width
    ground = rng.uniform(0.6, 0.95)
    _put(picture, box(-0.1, ground, 1.1, 1.1), jitter(rng, rgb(0.4, 0.4, 0.42), 0.08))


def _lights(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    picture.pixels[:] = _gradient(
        picture.size, _pick(palette, rng) * np.float32(0.3), _pick(palette, rng) * np.float32(0.6), rng
    )
    for _ in range(int(rng.integers(15, 60))):
        radius = rng.uniform(0.01, 0.07)
        color = np.clip(_pick(palette, rng) * np.float32(rng.uniform(0.9, 1.8)), 0, 1)
        _put(picture, ellipse(rng.uniform(0, 1, 2), (radius, radius)), color, 0.003, float(rng.uniform(0.3, 0.9)))


def _texture(picture: Picture, palette: Palette, rng: np.random.Generator) -> None:
    size = picture.size
    x, y = _grid(size)
    stretch = int(rng.integers(1, 5))
    noise = sum(
        (field(rng, (size, size), cells, cells * stretch) / np.float32(cells**0.5) for cells in (3, 7, 16, 40)),
        np.zeros((size, size), np.float32),
    )
    amount = np.clip(0.5 + 0.6 * noise, 0, 1)[:, :, None]
    first, second, third = (_pick(palette, rng) for _ in range(3))
    picture.pixels[:] = first * (1 - amount) + second * amount
    kind = str(rng.choice(PATTERNS))
    overlay = np.clip(2 * noise[:, :, None], 0, 1) if rng.random() < 0.5 else np.float32(0.5)
    picture.pixels[:] += overlay * (pattern(rng, kind, x, y, (second, third)) - picture.pixels)


SCENES: tuple[Callable[[Picture, Palette, np.random.Generator], None], ...] = (
    _room, _room, _room, _foliage, _street, _lights, _texture,
)  # fmt: skip


def _distract(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Put blobs and bars in the colours of this person's skin, hair and clothes into the scene."""
    for _ in range(int(rng.integers(1, 6))):
        color = jitter(rng, (look.skin, look.hair, look.cloth, look.cloth)[int(rng.integers(4))], 0.035)
        at, radius = rng.uniform(0, 1, 2), rng.uniform(0.03, 0.16)
        if rng.random() < 0.5:
            points = smooth(ellipse(at, (radius, radius * rng.uniform(0.4, 1.5)), rng.uniform(0, 3), 8), 3)
        else:
            points = box(at[0], at[1], at[0] + 2 * radius, at[1] + radius * rng.uniform(0.5, 3), rng.normal(0, 0.3))
        region = fill(picture.size, points, 0.004)
        if region is not None:
            light = 1 + 0.12 * field(rng, region.alpha.shape, 4, 4)
            region.paint(picture, np.asarray(color * light[:, :, None], np.float32))


def paint_backdrop(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Paint the whole scene behind the person, out of focus by a drawn amount."""
    palette = [rng.uniform(0.05, 0.95) + rng.normal(0, 0.12, 3).astype(np.float32) for _ in range(6)]
    palette = [np.clip(color, 0.03, 0.97).astype(np.float32) for color in palette]
    if rng.random() < 0.4:
        palette += [look.cloth, look.skin * np.float32(0.9), look.hair]
    SCENES[int(rng.integers(len(SCENES)))](picture, palette, rng)
    if rng.random() < 0.6:
        _distract(picture, look, rng)
    blur = float(rng.choice([0.0, 0.002, 0.004, 0.008, 0.014])) * picture.size
    if blur > 0.3:
        picture.pixels[:] = cv2.GaussianBlur(picture.pixels, (0, 0), blur)
    picture.pixels *= np.float32(rng.uniform(0.65, 1.15))
    picture.pixels *= (1 + 0.08 * field(rng, picture.coverage.shape, 3, 3))[:, :, None]
    np.clip(picture.pixels, 0, 1, out=picture.pixels)
