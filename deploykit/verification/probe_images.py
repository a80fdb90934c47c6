"""The images whose outputs tell preprocessings apart: constant colours, ramps, single pixels."""

from __future__ import annotations

import numpy as np

from deploykit.images.preprocess import Pixels

_GREY = 118


def probe_images(height: int, width: int) -> dict[str, Pixels]:
    """Return name → RGB pixels (height, width, 3); the first one alone tells most preprocessings apart.

    No two channels are equal in the colour and the ramps, no ramp is symmetric, and the single pixels lie off the
    middle: an exchange, a mirror image or a shift changes every one of them.
    """
    down = np.linspace(0, 1, height)[:, None] + np.zeros((1, width))
    across = np.linspace(0, 1, width)[None, :] + np.zeros((height, 1))
    ramp = np.stack([20 + 200 * across, 240 - 180 * down, 60 + 90 * across * down], axis=2)
    spot = np.full((height, width, 3), _GREY, np.uint8)
    spot[height // 3, width // 4] = (255, 0, 0)
    corner = np.zeros((height, width, 3), np.uint8)
    corner[0, 0] = (255, 255, 255)
    return {
        "ramps of colour": ramp.round().astype(np.uint8),
        "a constant colour": np.full((height, width, 3), (210, 120, 40), np.uint8),
        "a red pixel on grey": spot,
        "a ramp from left to right": np.repeat((255 * across).round().astype(np.uint8)[:, :, None], 3, axis=2),
        "a white pixel in the corner": corner,
    }
