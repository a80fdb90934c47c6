"""Surface patterns in 0..1 coordinates: what clothes and walls are made of."""

from __future__ import annotations

import numpy as np

from deploykit.images.synthetic.canvas import Floats, field

PATTERNS = ("plain", "plain", "plain", "stripes", "plaid", "dots", "knit", "blotches")


def pattern(rng: np.random.Generator, kind: str, x: Floats, y: Floats, colors: tuple[Floats, Floats]) -> Floats:
    """Return the colours (h, w, 3) of a pattern of two colours over the coordinates ``x`` and ``y``."""
    first, second = colors
    turn = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(turn)), np.float32(np.sin(turn))
    along, across = c * x + s * y, c * y - s * x
    frequency = np.float32(rng.uniform(60, 220))
    if kind == "stripes":
        amount = 0.5 + 0.5 * np.clip(4 * np.sin(along * frequency) - np.float32(rng.uniform(0, 2)), -1, 1)
    elif kind == "plaid":
        amount = 0.25 * ((np.sin(along * frequency) > 0.2).astype(np.float32) + (np.sin(across * frequency) > 0.2))
        amount += 0.3 * (np.sin(across * frequency * 0.5 + 1) > 0.93)
    elif kind == "dots":
        amount = np.clip(6 * (np.sin(along * frequency) * np.sin(across * frequency)) - 3.5, 0, 1)
    elif kind == "knit":
        amount = 0.15 + 0.15 * np.sin(x * frequency * 2 + 2 * np.sin(y * frequency))
    elif kind == "blotches":
        amount = np.clip(1.5 * field(rng, x.shape, 9, 9) - 0.2, 0, 1)
    else:
        return np.broadcast_to(first, (*x.shape, 3))
    amount = np.asarray(amount, np.float32)[:, :, None]
    return np.asarray(first * (1 - amount) + second * amount, np.float32)
