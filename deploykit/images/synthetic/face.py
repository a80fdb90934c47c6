"""The head without its hair: skin, shading, eyes, nose, mouth, ears, beard and glasses."""

from __future__ import annotations

import numpy as np

from deploykit.images.synthetic.canvas import (
    Belongs,
    Floats,
    Picture,
    Points,
    ellipse,
    field,
    fill,
    rgb,
    smooth,
    stroke,
)
from deploykit.images.synthetic.look import Look

DARK = rgb(0.06, 0.04, 0.04)
EYE_WHITE = rgb(0.9, 0.88, 0.86)
IRIS = (rgb(0.2, 0.12, 0.07), rgb(0.35, 0.22, 0.12), rgb(0.3, 0.4, 0.45), rgb(0.3, 0.36, 0.22))


def outline(look: Look, grow: float = 0.0, count: int = 36) -> Points:
    """Return the head's outline in head coordinates, widened by ``grow``; the jaw narrows towards the chin."""
    turn = np.linspace(0, 2 * np.pi, count, endpoint=False)
    u, v = np.sin(turn), -np.cos(turn)
    below = np.clip(v, 0, 1)
    u = u * (1 - (0.3 - look.jaw * 0.5) * below**2 - 0.06 * below)
    return np.stack([u, v], axis=1) * (1 + grow)


def _bump(u: Floats, v: Floats, at: tuple[float, float], radii: tuple[float, float]) -> Floats:
    return np.asarray(np.exp(-(((u - at[0]) / radii[0]) ** 2) - ((v - at[1]) / radii[1]) ** 2), np.float32)


def shade(look: Look, u: Floats, v: Floats) -> Floats:
    """Return the brightness (h, w) of a head-shaped ball lit by ``look.light``."""
    inside = np.sqrt(np.clip(1 - 0.75 * (u**2 + 0.7 * v**2), 0.05, 1))
    toward = np.float32(look.light[0]) * u + np.float32(look.light[1]) * v
    return np.asarray(0.62 + 0.38 * inside + np.float32(0.5 * look.contrast) * toward, np.float32)


def paint_face(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Paint ears, skin and features over what is there; the skin belongs to the person."""
    _paint_ears(picture, look)
    region = fill(picture.size, look.head(outline(look)))
    if region is None:
        return
    u, v = look.head_grid(*region.grid(picture.size))
    yaw = 0.32 * look.yaw
    nose = yaw * 1.25
    light = shade(look, u, v)
    side = -0.1 if look.light[0] > 0 else 0.1
    for at, radii, amount in (
        ((-0.42 + yaw, -0.1), (0.26, 0.13), -0.20),
        ((0.42 + yaw, -0.1), (0.26, 0.13), -0.20),
        ((nose, 0.12), (0.09, 0.26), 0.13),
        ((nose + side, 0.15), (0.09, 0.26), -0.13 * look.contrast),
        ((nose, 0.34), (0.13, 0.08), 0.12),
        ((nose, 0.42), (0.22, 0.05), -0.22),
        ((yaw, 0.74), (0.22, 0.05), -0.14),
        ((-0.52 + yaw, 0.3), (0.24, 0.18), 0.07),
        ((0.52 + yaw, 0.3), (0.24, 0.18), 0.07),
        ((yaw, -0.5), (0.45, 0.22), 0.08),
        ((yaw * 0.5, 0.9), (0.25, 0.1), 0.06),
    ):
        light += np.float32(amount) * _bump(u, v, at, radii)
    light += 0.015 * field(rng, light.shape, 10, 10)
    color = look.skin * light[:, :, None]
    flush = 0.06 * (_bump(u, v, (-0.5 + yaw, 0.28), (0.25, 0.2)) + _bump(u, v, (0.5 + yaw, 0.28), (0.25, 0.2)))
    flush += 0.05 * _bump(u, v, (nose, 0.33), (0.15, 0.12))
    color[:, :, 0] += flush
    color[:, :, 1:] -= 0.4 * flush[:, :, None]
    if look.beard > 0:
        color = _bearded(color, look, u, v, rng)
    region.paint(picture, color, Belongs.PERSON)
    _paint_mouth(picture, look, yaw, rng)
    for sign in (-1, 1):
        _paint_eye(picture, look, sign, yaw, rng)
    for sign in (-1, 1):
        _detail(picture, look, ellipse(np.array([nose + 0.08 * sign, 0.4]), (0.045, 0.022)), DARK, 0.55)
    if look.glasses:
        _paint_glasses(picture, look, yaw, rng)


def _bearded(color: Floats, look: Look, u: Floats, v: Floats, rng: np.random.Generator) -> Floats:
    yaw = 0.32 * look.yaw
    low = np.clip((v - 0.28 + 0.35 * (1 - np.clip(np.abs(u - yaw), 0, 1)) * (v < 0.5)) / 0.12, 0, 1)
    cheeks = np.clip((0.35 + 0.55 * np.abs(u - yaw) + v - 0.75) / 0.14, 0, 1)
    amount = np.minimum(low, cheeks) * look.beard * np.clip(0.9 + 0.1 * field(rng, u.shape, 30, 30), 0, 1)
    amount = np.asarray(amount * (1 - _bump(u, v, (yaw, 0.6), (0.25, 0.06))), np.float32)[:, :, None]
    texture = 1 + 0.15 * field(rng, u.shape, 40, 30)[:, :, None]
    return np.asarray(color * (1 - amount) + amount * look.hair * texture, np.float32)


def _detail(picture: Picture, look: Look, points: Points, color: Floats, opacity: float = 1.0) -> None:
    region = fill(picture.size, look.head(points))
    if region is not None:
        region.paint(picture, color, Belongs.DETAIL, opacity)


def _line(picture: Picture, look: Look, points: Points, color: Floats, width: float, *, opacity: float = 1.0) -> None:
    region = stroke(picture.size, look.head(points), width * look.half[0])
    if region is not None:
        region.paint(picture, color, Belongs.DETAIL, opacity)


def _paint_ears(picture: Picture, look: Look) -> None:
    for sign in (-1, 1):
        if sign * look.yaw > 0.45:
            continue
        at = np.array([sign * 0.99 - 0.04 * look.yaw, 0.05])
        for radii, tone, owner in (((0.13, 0.22), 0.82, Belongs.PERSON), ((0.06, 0.13), 0.6, Belongs.DETAIL)):
            region = fill(picture.size, look.head(ellipse(at, radii, sign * 0.15)))
            if region is not None:
                region.paint(picture, look.skin * np.float32(tone + 0.15 * sign * look.light[0]), owner)


def _paint_eye(picture: Picture, look: Look, sign: int, yaw: float, rng: np.random.Generator) -> None:
    x, y = 0.42 * sign * (1 - 0.12 * abs(look.yaw)) + yaw, -0.1
    opening = 0.055 * rng.uniform(0.6, 1.2)
    gaze = 0.04 * rng.normal()
    almond = np.array(
        [[-0.19, 0.01], [-0.08, -opening], [0.08, -opening], [0.19, 0.0], [0.07, opening], [-0.08, opening]]
    )
    _detail(picture, look, smooth(almond + np.array([x, y]), 3), EYE_WHITE * np.float32(0.5 + 0.4 * look.skin[0]))
    iris = IRIS[int(sum(look.skin) * 97) % len(IRIS)]
    _detail(picture, look, ellipse(np.array([x + gaze, y]), (0.085, min(0.065, opening * 1.15)), count=12), iris)
    _detail(picture, look, ellipse(np.array([x + gaze, y]), (0.04, 0.03), count=8), DARK)
    _detail(picture, look, ellipse(np.array([x + gaze + 0.03, y - 0.02]), (0.018, 0.013), count=6), EYE_WHITE)
    lid = np.array([[-0.21, 0.02], [-0.09, -opening - 0.01], [0.08, -opening - 0.01], [0.2, 0.0]])
    _line(picture, look, lid + np.array([x, y]), look.skin * np.float32(0.25), 0.05, opacity=0.9)
    brow = np.array([[-0.24, 0.02], [-0.08, -0.045], [0.1, -0.04], [0.24, 0.03]]) * (-sign, 1)
    brow_color = look.hair * np.float32(0.7) + look.skin * np.float32(0.12)
    _line(picture, look, brow + np.array([x, y - 0.17 - 0.03 * rng.random()]), brow_color, 0.085, opacity=0.8)


def _paint_mouth(picture: Picture, look: Look, yaw: float, rng: np.random.Generator) -> None:
    smile, width, opened = rng.uniform(-0.02, 0.09), rng.uniform(0.26, 0.4), rng.random() < 0.35
    lips = np.clip(look.skin * np.float32(0.78) * rgb(1.08, 0.72, 0.74), 0, 1)
    y = 0.6
    gap = 0.05 if opened else 0.0
    shape = np.array([
        [-width, -smile], [-0.1, -0.05], [0, -0.035], [0.1, -0.05], [width, -smile],
        [0.15, 0.055 + gap], [0, 0.075 + gap], [-0.15, 0.055 + gap],
    ])  # fmt: skip
    _detail(picture, look, smooth(shape + np.array([yaw, y]), 3), lips)
    if opened:
        teeth = np.array([[-width * 0.8, -smile * 0.6], [0, 0.0], [width * 0.8, -smile * 0.6], [0, 0.06]])
        _detail(picture, look, smooth(teeth + np.array([yaw, y]), 3), rgb(0.85, 0.82, 0.78))
    else:
        seam = np.array([[-width, -smile], [-0.1, 0.012], [0.1, 0.012], [width, -smile]])
        _line(picture, look, seam + np.array([yaw, y]), look.skin * np.float32(0.3), 0.03, opacity=0.8)
    for sign in (-1, 1):
        fold = np.array([[0.2, 0.36], [0.34, 0.46], [0.38, 0.58]]) * (sign, 1) + (yaw, 0)
        _line(picture, look, fold, look.skin * np.float32(0.6), 0.04, opacity=0.45)


def _paint_glasses(picture: Picture, look: Look, yaw: float, rng: np.random.Generator) -> None:
    frame = rgb(0.08, 0.08, 0.09) if rng.random() < 0.7 else look.accent
    dark_lens = rng.random() < 0.3
    for sign in (-1, 1):
        lens = ellipse(np.array([0.42 * sign + yaw, -0.07]), (0.29, 0.17), count=14)
        _detail(picture, look, lens, rgb(0.1, 0.1, 0.12) if dark_lens else EYE_WHITE, 0.85 if dark_lens else 0.08)
        _line(picture, look, np.concatenate([lens, lens[:1]]), frame, 0.05)
        _line(picture, look, np.array([[0.71 * sign + yaw, -0.1], [sign * 1.0, -0.12]]), frame, 0.05)
    _line(picture, look, np.array([[-0.13 + yaw, -0.1], [0.13 + yaw, -0.1]]), frame, 0.05)
