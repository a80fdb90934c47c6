"""Neck, shoulders, clothes, arms and hands."""

from __future__ import annotations

import numpy as np

from deploykit.images.synthetic.canvas import (
    Belongs,
    Floats,
    Picture,
    Points,
    capsule,
    ellipse,
    field,
    fill,
    jitter,
    rgb,
    smooth,
    stroke,
)
from deploykit.images.synthetic.fabric import PATTERNS, pattern
from deploykit.images.synthetic.look import Look

WHITE = rgb(0.9, 0.9, 0.92)


def neck_base(look: Look) -> Points:
    """Return the point between the collar bones."""
    down = np.array([-np.sin(look.roll) * 0.6, 1.0]) * look.half[1] * 1.38
    return np.asarray(look.center + down)


def torso(look: Look) -> Points:
    """Return the outline of shoulders and chest, which runs out of the picture's lower side."""
    a = look.half[0]
    base = neck_base(look)
    rows = []
    for sign in (-1, 1):
        tilt = 1 + sign * look.lean
        reach = look.shoulder * tilt
        drop = look.slope * (1 + sign * look.lean)
        side = np.array([
            [0.5, -0.12], [0.85, 0.0 + 0.15 * drop], [reach * 0.62, 0.1 + 0.75 * drop], [reach * 0.9, 0.25 + drop],
            [reach * 1.04, 0.75 + drop], [reach * 1.12, 1.7 + drop], [reach * 1.18, 3.2 + drop],
        ]) * (sign * a, a)  # fmt: skip
        rows.append(side)
    bottom = max(1.2, base[1] + 4 * a)
    left, right = rows
    floor = np.array([[right[-1, 0] * 1.02, bottom - base[1]], [left[-1, 0] * 1.02, bottom - base[1]]])
    return np.asarray(base + np.concatenate([right, floor, left[::-1]]))


def _cloth_shade(look: Look, x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    a = np.float32(look.half[0])
    base = neck_base(look).astype(np.float32)
    u = (x - base[0]) / (a * np.float32(look.shoulder))
    v = (y - base[1]) / a
    folds = field(rng, x.shape, 5, 14) * np.float32(0.09) + field(rng, x.shape, 11, 9) * np.float32(0.05)
    light = 1.03 - 0.28 * u**2 + np.float32(0.35 * look.light[0] * look.contrast) * u - 0.03 * v
    under_chin = np.exp(-((u / 0.45) ** 2) - ((v + 0.1) / 0.5) ** 2)
    return np.asarray(light + folds - 0.25 * look.contrast * under_chin, np.float32)


def paint_neck(picture: Picture, look: Look) -> None:
    """Paint the neck, darker under the chin."""
    a, b = look.half
    base = neck_base(look)
    top = look.head(np.array([[-0.6, 0.45], [0.6, 0.45]]))
    width = a * 0.68
    points = np.array(
        [
            top[0],
            top[1],
            base + np.array([width, 0]),
            base + np.array([width * 1.5, 0.5 * a]),
            base + np.array([-width * 1.5, 0.5 * a]),
            base - (width, 0),
        ]
    )
    region = fill(picture.size, points)
    if region is None:
        return
    x, y = region.grid(picture.size)
    below = (y - np.float32(look.center[1])) / np.float32(b)
    across = (x - np.float32(base[0])) / np.float32(a)
    light = 0.9 - np.float32(0.35 * (0.5 + look.contrast)) * np.exp(-(((below - 0.95) / 0.22) ** 2))
    light = light - 0.2 * across**2 + np.float32(0.3 * look.light[0] * look.contrast) * across
    region.paint(picture, np.asarray(look.skin * light[:, :, None], np.float32), Belongs.PERSON)


def paint_clothes(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Paint torso and garment; all of it belongs to the person."""
    region = fill(picture.size, smooth(torso(look), 4), 0.001)
    if region is None:
        return
    x, y = region.grid(picture.size)
    light = _cloth_shade(look, x, y, rng)[:, :, None]
    kind = "plain" if look.garment == "suit" else str(rng.choice(PATTERNS))
    if look.garment == "straps":
        region.paint(picture, np.asarray(look.skin * light, np.float32), Belongs.PERSON)
        _paint_straps(picture, look, rng, kind)
    else:
        colors = pattern(rng, kind, x, y, (look.cloth, look.accent)) * light
        region.paint(picture, np.clip(colors, 0, 1).astype(np.float32), Belongs.PERSON)
        _paint_collar(picture, look, rng)
    _paint_creases(picture, look, rng)


def _shape(picture: Picture, look: Look, points: list[list[float]], color: Floats, opacity: float = 1.0) -> None:
    region = fill(picture.size, neck_base(look) + np.array(points) * look.half[0])
    if region is None:
        return
    x, _ = region.grid(picture.size)
    across = (x - np.float32(neck_base(look)[0])) / np.float32(look.half[0])
    light = 1 + np.float32(0.25 * look.light[0] * look.contrast) * across
    color = np.clip(color * light[:, :, None], 0, 1).astype(np.float32)
    region.paint(picture, color, Belongs.PERSON, opacity)


def _paint_straps(picture: Picture, look: Look, rng: np.random.Generator, kind: str) -> None:
    wide = rng.uniform(0.15, 0.5)
    top = rng.uniform(0.9, 1.5)
    reach = look.shoulder
    points = np.array([
        [-0.8 - wide, 0.1], [-0.8, 0.05], [-0.5, top], [0, top + 0.15], [0.5, top], [0.8, 0.05], [0.8 + wide, 0.1],
        [reach * 0.72, top], [reach * 0.85, 5], [-reach * 0.85, 5], [-reach * 0.72, top],
    ])  # fmt: skip
    region = fill(picture.size, neck_base(look) + points * look.half[0])
    if region is not None:
        x, y = region.grid(picture.size)
        light = _cloth_shade(look, x, y, rng)[:, :, None]
        colors = np.clip(pattern(rng, kind, x, y, (look.cloth, look.accent)) * light, 0, 1)
        region.paint(picture, colors.astype(np.float32), Belongs.PERSON)


def _paint_collar(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    skin, dark = look.skin * np.float32(0.82), look.cloth * np.float32(0.6)
    depth = rng.uniform(0.25, 0.5)
    if look.garment in {"tee", "hoodie"}:
        _shape(picture, look, [[-0.75, -0.2], [0.75, -0.2], [0.55, depth], [0, depth + 0.2], [-0.55, depth]], dark)
        _shape(
            picture,
            look,
            [[-0.66, -0.25], [0.66, -0.25], [0.5, depth - 0.1], [0, depth + 0.08], [-0.5, depth - 0.1]],
            skin,
        )
    if look.garment == "hoodie":
        for sign in (-1, 1):
            hood = [[0.55 * sign, -0.45], [1.2 * sign, 0.0], [0.9 * sign, 0.55], [0.2 * sign, depth + 0.5]]
            _shape(picture, look, hood, look.cloth * np.float32(0.82))
            _shape(picture, look, [[0.3 * sign, 0.6], [0.36 * sign, 0.6], [0.4 * sign, 1.8], [0.34 * sign, 1.8]], WHITE)
    if look.garment == "turtleneck":
        _shape(
            picture,
            look,
            [[-0.72, -0.65], [0.72, -0.65], [0.85, 0.15], [0, 0.3], [-0.85, 0.15]],
            look.cloth * np.float32(0.9),
        )
        for row in (-0.5, -0.1):
            _shape(picture, look, [[-0.72, row], [0.72, row], [0.72, row + 0.05], [-0.72, row + 0.05]], dark, 0.5)
    if look.garment == "vneck":
        deep = rng.uniform(0.8, 1.5)
        _shape(picture, look, [[-0.72, -0.2], [0.72, -0.2], [0, deep]], dark)
        _shape(picture, look, [[-0.66, -0.25], [0.66, -0.25], [0, deep - 0.12]], skin)
    if look.garment == "shirt":
        _paint_shirt(picture, look, look.cloth)
    if look.garment == "suit":
        under = jitter(rng, WHITE, 0.05) if rng.random() < 0.7 else look.accent
        _shape(picture, look, [[-0.72, -0.2], [0.72, -0.2], [0.05, 3.2], [-0.05, 3.2]], under)
        _paint_shirt(picture, look, under)
        for sign in (-1, 1):
            lapel = [
                [0.75 * sign, -0.15],
                [1.15 * sign, 0.7],
                [0.85 * sign, 0.95],
                [0.02 * sign, 3.2],
                [0.4 * sign, 0.9],
            ]
            _shape(picture, look, lapel, look.cloth * np.float32(1.15))
        if rng.random() < 0.6:
            _shape(
                picture,
                look,
                [[-0.15, 0.25], [0.15, 0.25], [0.1, 0.5], [0.22, 3], [-0.22, 3], [-0.1, 0.5]],
                look.accent,
            )


def _paint_shirt(picture: Picture, look: Look, color: Floats) -> None:
    _shape(picture, look, [[-0.6, -0.3], [0.6, -0.3], [0, 0.55]], look.skin * np.float32(0.75))
    for sign in (-1, 1):
        wing = [[0.6 * sign, -0.45], [0.85 * sign, -0.05], [0.45 * sign, 0.6], [0.02 * sign, 0.3]]
        _shape(picture, look, wing, color * np.float32(1.12))
    seam = stroke(picture.size, neck_base(look) + np.array([[0, 0.4], [0.02, 4]]) * look.half[0], 0.04 * look.half[0])
    if seam is not None:
        seam.paint(picture, color * np.float32(0.55), Belongs.DETAIL, 0.7)


def _paint_creases(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    a, base = look.half[0], neck_base(look)
    dark = look.cloth * np.float32(0.5)
    for sign in (-1, 1):
        if rng.random() < 0.8:
            at = sign * look.shoulder * rng.uniform(0.68, 0.8)
            line = base + np.array([[at * 1.05, look.slope + 0.9], [at * 0.97, look.slope + 1.7], [at, 4.5]]) * a
            region = stroke(picture.size, line, 0.06 * a)
            if region is not None:
                region.paint(picture, dark, Belongs.DETAIL, 0.7)
    for _ in range(int(rng.integers(2, 7))):
        start = np.array([rng.uniform(-1.6, 1.6), rng.uniform(0.9, 3)])
        line = base + np.stack([start, start + rng.normal(0, 0.25, 2), start + rng.normal(0, 0.5, 2)]) * a
        region = stroke(picture.size, line, 0.05 * a)
        if region is not None:
            region.paint(picture, dark, Belongs.DETAIL, float(rng.uniform(0.15, 0.5)))


def paint_arm(picture: Picture, look: Look, rng: np.random.Generator) -> Points:
    """Paint one raised forearm with its hand, both the person's; return where the palm is."""
    a = look.half[0]
    sign = float(rng.choice([-1, 1]))
    base = neck_base(look)
    elbow = base + np.array([sign * look.shoulder * rng.uniform(0.7, 1.15), rng.uniform(2.2, 3.2)]) * a
    palm = look.head(np.array([[sign * rng.uniform(0.2, 1.5), rng.uniform(0.75, 2.2)]]))[0]
    toward = (palm - elbow) / (np.hypot(*(palm - elbow)) + 1e-6)
    wrist = palm - toward * 0.35 * a
    sleeve = look.skin if look.garment == "straps" or rng.random() < 0.3 else look.cloth
    for points, color in (
        (capsule(elbow, wrist, 0.42 * a, 0.26 * a), sleeve),
        (
            capsule(elbow + toward * a, palm, 0.24 * a, 0.24 * a)
            if rng.random() < 0.5
            else capsule(wrist, palm, 0.22 * a, 0.24 * a),
            look.skin,
        ),
        (capsule(elbow, elbow + toward * 0.7 * np.hypot(*(wrist - elbow)), 0.45 * a, 0.34 * a), sleeve),
    ):
        _limb(picture, look, points, color, rng)
    side = np.array([-toward[1], toward[0]])
    _limb(picture, look, ellipse(palm, (0.36 * a, 0.33 * a), float(np.arctan2(toward[1], toward[0]))), look.skin, rng)
    curl = rng.uniform(0.45, 0.95)
    for index in range(4):
        root = palm + side * (index - 1.5) * 0.17 * a + toward * 0.2 * a
        tip = root + (toward * curl + side * 0.08 * (index - 1.5) + rng.normal(0, 0.06, 2)) * 0.62 * a
        _limb(
            picture,
            look,
            capsule(root, tip, 0.095 * a, 0.075 * a),
            look.skin * np.float32(0.9 + 0.06 * (index % 2)),
            rng,
        )
    thumb = palm + (side * sign * 0.5 + toward * 0.25) * a
    _limb(picture, look, capsule(palm, thumb, 0.12 * a, 0.08 * a), look.skin * np.float32(0.93), rng)
    return np.asarray(palm + toward * 0.2 * a)


def _limb(picture: Picture, look: Look, points: Points, color: Floats, rng: np.random.Generator) -> None:
    region = fill(picture.size, points)
    if region is None:
        return
    x, y = region.grid(picture.size)
    middle = points.mean(axis=0).astype(np.float32)
    reach = np.float32(np.abs(points - middle).max() + 1e-6)
    light = (
        0.92
        + np.float32(0.3 * look.contrast)
        * (np.float32(look.light[0]) * (x - middle[0]) + np.float32(look.light[1]) * (y - middle[1]))
        / reach
    )
    light = light + 0.03 * field(rng, x.shape, 5, 5)
    rim = np.minimum(1, 0.75 + 0.25 * region.alpha**3)
    region.paint(picture, np.asarray(color * (light * rim)[:, :, None], np.float32), Belongs.PERSON)
