"""Hair and what covers it: the part behind the body, the part over the forehead, strands, hats."""

from __future__ import annotations

import numpy as np

from deploykit.images.synthetic.canvas import (
    Belongs,
    Floats,
    Picture,
    Points,
    Region,
    ellipse,
    field,
    fill,
    smooth,
    stroke,
)
from deploykit.images.synthetic.face import shade
from deploykit.images.synthetic.look import Look

LONG_STYLES = frozenset({"bob", "long"})
VOLUME = {"buzz": 0.03, "short": 0.13, "side": 0.17, "bob": 0.15, "long": 0.13, "curly": 0.3, "bun": 0.08}


def _hair_color(look: Look, region: Region, size: int, rng: np.random.Generator) -> Floats:
    """Return hair (h, w, 3) whose strands run away from the crown."""
    u, v = look.head_grid(*region.grid(size))
    angle = np.arctan2(u, v + np.float32(1.15))
    radius = np.hypot(u, v + np.float32(1.15))
    strands = rng.standard_normal(512).astype(np.float32)
    coarse = np.repeat(rng.standard_normal(64).astype(np.float32), 8)
    where = ((angle / (2 * np.pi) + 0.5) * 511 + 6 * field(rng, u.shape, 5, 5)).astype(np.int32) % 512
    texture = 0.13 * strands[where] + 0.16 * coarse[where] + 0.1 * field(rng, u.shape, 7, 7)
    shine = np.exp(-(((radius - 0.55) / 0.22) ** 2)) * (0.2 + 0.35 * look.contrast)
    light = shade(look, u * np.float32(0.8), v * np.float32(0.8)) * (1 + texture) + shine * (0.6 + texture)
    return np.asarray(np.clip(look.hair * light[:, :, None] + 0.05 * shine[:, :, None], 0, 1), np.float32)


def _paint_hair(picture: Picture, look: Look, points: Points, rng: np.random.Generator) -> None:
    region = fill(picture.size, points, 0.002)
    if region is not None:
        region.paint(picture, _hair_color(look, region, picture.size, rng), Belongs.PERSON)


def _bumpy(points: Points, rng: np.random.Generator, amount: float) -> Points:
    middle = points.mean(axis=0)
    return np.asarray(middle + (points - middle) * (1 + amount * rng.standard_normal((len(points), 1))))


def paint_back_hair(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Paint the hair that hangs behind neck and shoulders."""
    if look.style == "curly":
        puff = ellipse(np.array([0.0, -0.25]), (1.42, 1.12), count=22)
        _paint_hair(picture, look, look.head(smooth(_bumpy(puff, rng, 0.045), 3)), rng)
    if look.style == "bun":
        knot = ellipse(np.array([rng.uniform(-0.5, 0.5), -1.2]), (0.42, 0.34), count=12)
        _paint_hair(picture, look, look.head(smooth(_bumpy(knot, rng, 0.05), 3)), rng)
    if look.style not in LONG_STYLES:
        return
    length = rng.uniform(0.75, 1.15) if look.style == "bob" else rng.uniform(1.4, 2.6)
    width = rng.uniform(1.12, 1.35)
    left, right = length * rng.uniform(0.85, 1.1), length * rng.uniform(0.85, 1.1)
    shape = np.array([
        [0, -1.1], [0.75, -0.9], [width, -0.2], [width + 0.05, 0.5], [width * rng.uniform(0.95, 1.25), right],
        [0.5, right * 0.98], [-0.5, left * 0.98], [-width * rng.uniform(0.95, 1.25), left], [-width - 0.05, 0.5],
        [-width, -0.2], [-0.75, -0.9],
    ])  # fmt: skip
    _paint_hair(picture, look, look.head(smooth(shape, 4)), rng)


def paint_front_hair(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Paint the hair over the skull, single strands, and the hat."""
    if look.style != "bald":
        _paint_cap(picture, look, rng)
    if look.style == "long" and rng.random() < 0.6:
        _paint_locks(picture, look, rng)
    if look.style not in {"bald", "buzz"}:
        _paint_strands(picture, look, rng)
    if look.hat != "none":
        _paint_hat(picture, look, rng)


def _paint_cap(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    volume = VOLUME[look.style] * rng.uniform(0.7, 1.3)
    down = {"bob": 0.7, "long": 0.8, "curly": 0.25}.get(look.style, rng.uniform(-0.1, 0.15))
    turn = np.linspace(-1.62 - 0.3 * max(down, 0), 1.62 + 0.3 * max(down, 0), 17)
    lift = volume * np.clip(np.cos(turn) * 1.1 + 0.25, 0.2, 1.2)
    outer = np.stack([np.sin(turn) * (1.03 + 0.5 * lift), -np.cos(turn) * (1.02 + lift)], axis=1)
    outer[[0, -1], 1] = down
    if look.style == "curly":
        outer = _bumpy(outer, rng, 0.03)
    line = rng.uniform(-0.68, -0.45) if rng.random() < 0.65 else rng.uniform(-0.42, -0.28)
    part = rng.uniform(-0.5, 0.5)
    temple = rng.uniform(0.72, 0.86)
    yaw = 0.2 * look.yaw
    inner = np.array([
        [0.98, down], [temple + 0.08, -0.12], [temple + yaw, line + 0.22], [0.45 + yaw, line + 0.03 * rng.normal()],
        [part + yaw, line - (0.12 if look.style in {"side", "long", "bob"} else 0.0)],
        [-0.45 + yaw, line + 0.03 * rng.normal()], [-temple + yaw, line + 0.22], [-temple - 0.08, -0.12], [-0.98, down],
    ])  # fmt: skip
    if look.style == "buzz" and rng.random() < 0.5:
        inner[3:6, 1] -= 0.18
    _paint_hair(picture, look, look.head(smooth(np.concatenate([outer, inner]), 3)), rng)


def _paint_locks(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    for sign in (-1, 1):
        end = rng.uniform(1.3, 2.3)
        lock = np.array(
            [[0.8, -0.5], [1.12, 0.0], [1.2, 0.7], [1.15, end], [0.85, end * 0.96], [0.86, 0.8], [0.9, 0.1]]
        )
        _paint_hair(picture, look, look.head(smooth(lock * (sign, 1), 3)), rng)


def _paint_strands(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    volume = VOLUME[look.style]
    for _ in range(int(rng.integers(4, 14))):
        turn = rng.uniform(-1.7, 1.7)
        start = np.array([np.sin(turn), -np.cos(turn)]) * (1.0 + 0.5 * volume)
        out = start * rng.uniform(1.03, 1.12 + volume)
        bend = out + rng.normal(0, 0.09, 2) + (0, 0.1)
        region = stroke(picture.size, look.head(np.stack([start, out, bend])), 0.03 * look.half[0])
        if region is not None:
            region.paint(picture, look.hair * np.float32(rng.uniform(0.7, 1.4)), Belongs.PERSON, 0.8)


def _paint_hat(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    turn = np.linspace(-np.pi / 2, np.pi / 2, 13)
    height = {"beanie": 1.3, "cap": 1.22, "brim": 1.45}[look.hat]
    base = rng.uniform(-0.5, -0.38)
    dome = np.stack([1.1 * np.sin(turn), base - (height + base) * np.cos(turn) ** 0.8], axis=1)
    region = fill(picture.size, look.head(np.concatenate([dome, [[0.5, base + 0.08], [-0.5, base + 0.08]]])))
    if region is None:
        return
    u, v = look.head_grid(*region.grid(picture.size))
    ribs = 0.1 * np.sin(u * np.float32(rng.uniform(15, 40))) if look.hat == "beanie" else 0.0
    light = shade(look, u, v) + ribs + 0.05 * field(rng, u.shape, 8, 8)
    region.paint(picture, np.clip(look.accent * light[:, :, None], 0, 1), Belongs.PERSON)
    if look.hat == "beanie":
        brim = np.array([[-1.13, base - 0.22], [1.13, base - 0.22], [1.13, base + 0.1], [-1.13, base + 0.1]])
    elif look.hat == "cap":
        side = 0.5 * look.yaw
        brim = ellipse(np.array([side, base + 0.08]), (0.95, 0.17), count=16)
    else:
        brim = ellipse(np.array([0.0, base + 0.02]), (rng.uniform(1.6, 2.0), 0.22), count=20)
    edge = fill(picture.size, look.head(brim))
    if edge is not None:
        edge.paint(picture, look.accent * np.float32(0.72), Belongs.PERSON)
