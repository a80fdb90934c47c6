"""Synthetic portraits with exact masks: for training the bundled checkpoints, for calibration and for tests.

Everything is drawn, so the mask is known and not estimated. The mask holds the person with hair, clothes, hat,
glasses and hands. It does not hold what stands or is held in front of the person, such as a mug, a phone or a
book: those cut a hole into it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import ImageError
from deploykit.images.synthetic.backdrop import paint_backdrop
from deploykit.images.synthetic.body import neck_base, paint_arm, paint_clothes, paint_neck, torso
from deploykit.images.synthetic.camera import photograph
from deploykit.images.synthetic.canvas import Belongs, Picture, Points, box, capsule, ellipse, field, fill, jitter
from deploykit.images.synthetic.face import outline, paint_face
from deploykit.images.synthetic.hair import paint_back_hair, paint_front_hair
from deploykit.images.synthetic.look import Look, draw_look

GENERATOR_VERSION = 1
SMALLEST, LARGEST = 64, 1024


@dataclass(frozen=True)
class Portrait:
    """``image`` (size, size, 3) uint8 RGB and ``mask`` (size, size) uint8, 1 where the person is."""

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


def synthesize(seed: int, size: int = 224) -> Portrait:
    """Return the portrait of ``seed`` at ``size`` x ``size`` pixels; the same arguments give the same pixels.

    Another size shows the same person in the same scene. Raises ImageError for a negative seed or a size
    outside 64 to 1024.
    """
    if seed < 0 or not SMALLEST <= size <= LARGEST:
        raise ImageError(
            "no synthetic portrait can be drawn from this",
            found=f"seed {seed}, size {size}",
            expected=f"a seed of at least 0 and a size from {SMALLEST} to {LARGEST}",
        )
    person, scene, lens = (np.random.default_rng([GENERATOR_VERSION, seed, part]) for part in range(3))
    look = draw_look(person)
    picture = Picture(np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32))
    paint_backdrop(picture, look, scene)
    _cast_shadow(picture, look, scene)
    paint_back_hair(picture, look, person)
    paint_neck(picture, look)
    paint_clothes(picture, look, person)
    paint_face(picture, look, person)
    paint_front_hair(picture, look, person)
    if person.random() < 0.25:
        palm = paint_arm(picture, look, person)
        if person.random() < 0.5:
            _hold(picture, look, palm, person)
    if person.random() < 0.12:
        _stand_in_front(picture, look, person)
    return Portrait(photograph(picture.pixels, lens), (picture.coverage >= 0.5).astype(np.uint8))


def _cast_shadow(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        return
    away = -look.light * look.half[0] * rng.uniform(0.2, 1.0)
    strength = float(rng.uniform(0.15, 0.5))
    for points in (look.head(outline(look, 0.12)), torso(look)):
        region = fill(picture.size, points + away, float(rng.uniform(0.01, 0.03)))
        if region is not None:
            patch = picture.pixels[region.rows, region.columns]
            patch *= 1 - strength * region.alpha[:, :, None]


def _hold(picture: Picture, look: Look, palm: Points, rng: np.random.Generator) -> None:
    """Put a phone or a mug before the palm; it covers the person and is not part of it."""
    a = look.half[0]
    color = jitter(rng, look.accent, 0.1)
    if rng.random() < 0.5:
        tilt = float(rng.normal(0, 0.4))
        width, height = 0.34 * a, 0.7 * a
        for shrink, tone in ((1.0, 0.35), (0.86, 0.8)):
            x, y = width * shrink, height * shrink
            points = box(palm[0] - x, palm[1] - y, palm[0] + x, palm[1] + y, tilt)
            _occlude(picture, points, color * np.float32(tone), rng)
    else:
        cup = palm + np.array([[-0.36, -0.5], [0.36, -0.5], [0.3, 0.5], [-0.3, 0.5]]) * a
        _occlude(picture, cup, color, rng)
        _occlude(picture, ellipse(palm - (0, 0.5 * a), (0.36 * a, 0.09 * a)), color * np.float32(0.5), rng)


def _stand_in_front(picture: Picture, look: Look, rng: np.random.Generator) -> None:
    """Put a table edge, a microphone or a blurred leaf between camera and person."""
    base = neck_base(look)
    color = jitter(rng, look.accent, 0.15)
    kind = rng.integers(3)
    if kind == 0:
        top = rng.uniform(0.86, 0.95)
        _occlude(
            picture, np.array([[-0.1, top + rng.normal(0, 0.02)], [1.1, top], [1.1, 1.1], [-0.1, 1.1]]), color, rng
        )
    elif kind == 1:
        head = base + np.array([rng.normal(0, 1.0), rng.uniform(0.2, 1.0)]) * look.half[0]
        foot = np.array([head[0] + rng.normal(0, 0.1), 1.1])
        _occlude(picture, capsule(head, foot, 0.012, 0.014), color * np.float32(0.4), rng)
        _occlude(picture, ellipse(head, (0.035, 0.045)), color * np.float32(0.6), rng)
    else:
        side = float(rng.choice([0.0, 1.0]))
        tip = np.array([side + (0.5 - side) * rng.uniform(0.3, 0.7), rng.uniform(0.5, 0.9)])
        _occlude(picture, capsule(np.array([side, 1.05]), tip, 0.07, 0.02), color, rng, 0.008)


def _occlude(
    picture: Picture, points: Points, color: NDArray[np.float32], rng: np.random.Generator, blur: float = 0.0
) -> None:
    region = fill(picture.size, points, blur)
    if region is not None:
        light = 1 + 0.1 * field(rng, region.alpha.shape, 3, 3)
        region.paint(picture, np.asarray(color * light[:, :, None], np.float32), Belongs.SCENE)


__all__ = ["GENERATOR_VERSION", "Portrait", "synthesize"]
