"""What a person looks like, drawn once from a seed: every random choice that more than one part must agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deploykit.images.synthetic.canvas import Floats, Points, jitter, rgb

SKIN = (
    rgb(0.95, 0.80, 0.71), rgb(0.90, 0.73, 0.62), rgb(0.86, 0.66, 0.53), rgb(0.78, 0.57, 0.43),
    rgb(0.65, 0.46, 0.34), rgb(0.50, 0.34, 0.25), rgb(0.37, 0.25, 0.19),
)  # fmt: skip
HAIR = (
    rgb(0.08, 0.07, 0.07), rgb(0.16, 0.11, 0.09), rgb(0.28, 0.19, 0.13), rgb(0.42, 0.29, 0.18),
    rgb(0.68, 0.54, 0.34), rgb(0.50, 0.24, 0.13), rgb(0.55, 0.54, 0.53), rgb(0.83, 0.82, 0.80),
)  # fmt: skip
HAIR_STYLES = ("bald", "buzz", "short", "short", "side", "bob", "long", "long", "curly", "bun")
GARMENTS = ("tee", "tee", "shirt", "suit", "hoodie", "turtleneck", "vneck", "straps")
HATS = ("none",) * 15 + ("beanie", "cap", "brim")


@dataclass(frozen=True)
class Look:
    """One person: geometry in fractions of the picture's side, colours in 0..1.

    ``half`` is the head's half width and half height; ``light`` points from the face towards the lamp, x to the
    right and y down, with a length of at most 1.
    """

    center: Points
    half: Points
    roll: float
    yaw: float
    shoulder: float
    slope: float
    lean: float
    jaw: float
    skin: Floats
    hair: Floats
    cloth: Floats
    accent: Floats
    style: str
    garment: str
    hat: str
    beard: float
    glasses: bool
    light: Points
    contrast: float

    def head(self, points: Points) -> Points:
        """Return picture coordinates of head coordinates (n, 2): (0, 0) the face's middle, 1 its edge."""
        c, s = np.cos(self.roll), np.sin(self.roll)
        return np.asarray(self.center + (points * self.half) @ np.array([[c, s], [-s, c]]))

    def head_grid(self, x: Floats, y: Floats) -> tuple[Floats, Floats]:
        """Return head coordinates of picture coordinates."""
        c, s = np.float32(np.cos(self.roll)), np.float32(np.sin(self.roll))
        dx, dy = x - np.float32(self.center[0]), y - np.float32(self.center[1])
        u, v = (c * dx + s * dy) / np.float32(self.half[0]), (c * dy - s * dx) / np.float32(self.half[1])
        return np.asarray(u, np.float32), np.asarray(v, np.float32)


def _garment_color(rng: np.random.Generator) -> Floats:
    if rng.random() < 0.45:
        return np.full(3, rng.uniform(0.06, 0.92), np.float32) + rng.normal(0, 0.03, 3).astype(np.float32)
    hue = rng.uniform(0, 2 * np.pi)
    wheel = 0.5 + 0.5 * np.cos(hue - np.array([0, 2.09, 4.19]))
    value, saturation = rng.uniform(0.2, 0.9), rng.uniform(0.25, 0.85)
    return np.asarray(value * (1 - saturation * (1 - wheel)), np.float32)


def draw_look(rng: np.random.Generator) -> Look:
    """Return a person drawn from ``rng``."""
    half_width = float(np.clip(rng.lognormal(np.log(0.135), 0.2), 0.085, 0.21))
    half = np.array([half_width, half_width * rng.uniform(1.22, 1.42)])
    center = np.array([0.5 + rng.normal(0, 0.07), rng.uniform(1.12, 1.75) * half[1] + rng.uniform(0.0, 0.08)])
    if rng.random() < 0.1:
        center[0] = 0.5 + rng.choice([-1, 1]) * rng.uniform(0.25, 0.4)
    if rng.random() < 0.08:
        center[1] = half[1] * rng.uniform(0.55, 0.95)
    angle = rng.uniform(0, 2 * np.pi)
    strength = rng.uniform(0.2, 1.0)
    skin = jitter(rng, SKIN[rng.integers(len(SKIN))], 0.025)
    cloth = jitter(rng, _garment_color(rng), 0.02)
    hair = jitter(rng, HAIR[rng.integers(len(HAIR))], 0.02)
    if rng.random() < 0.04:
        hair = _garment_color(rng)
    style = str(rng.choice(HAIR_STYLES))
    man = style in {"bald", "buzz", "short", "side"}
    return Look(
        center=center,
        half=half,
        roll=float(rng.normal(0, 0.11)),
        yaw=float(np.clip(rng.normal(0, 0.35), -0.9, 0.9)),
        shoulder=float(rng.uniform(1.95, 2.75)),
        slope=float(rng.uniform(0.15, 0.6)),
        lean=float(rng.normal(0, 0.12)),
        jaw=float(rng.uniform(0.0, 0.35)),
        skin=skin,
        hair=hair,
        cloth=cloth,
        accent=jitter(rng, _garment_color(rng), 0.02),
        style=style,
        garment=str(rng.choice(GARMENTS)),
        hat=str(rng.choice(HATS)),
        beard=float(rng.uniform(0.3, 1.0)) if man and rng.random() < 0.35 else 0.0,
        glasses=bool(rng.random() < 0.22),
        light=strength * np.array([np.cos(angle), -abs(np.sin(angle))]),
        contrast=float(rng.uniform(0.2, 0.75)),
    )
