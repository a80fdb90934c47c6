"""What the camera adds: exposure, colour cast, vignette, blur, noise and JPEG."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.images.synthetic.canvas import Floats, field


def photograph(pixels: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return 8-bit RGB pixels (size, size, 3) of a scene (size, size, 3) in 0..1."""
    size = pixels.shape[0]
    cast = rng.normal(1, 0.05, 3).astype(np.float32)
    shot = pixels * (cast * np.float32(rng.uniform(0.8, 1.15)))
    if rng.random() < 0.5:
        shot = shot * (1 + 0.12 * field(rng, (size, size), 2, 2))[:, :, None]
    if rng.random() < 0.5:
        axis = np.linspace(-1, 1, size, dtype=np.float32)
        shot = shot * (1 - np.float32(rng.uniform(0.1, 0.35)) * (axis[:, None] ** 2 + axis[None] ** 2) / 2)[:, :, None]
    contrast, pivot = np.float32(rng.uniform(0.85, 1.2)), np.float32(0.45)
    shot = (shot - pivot) * contrast + pivot
    blur = float(rng.choice([0.0, 0.0, 0.002, 0.003, 0.0045])) * size
    if blur > 0.25:
        shot = cv2.GaussianBlur(shot, (0, 0), blur)
    quality = int(rng.integers(45, 96)) if rng.random() < 0.6 else None
    shot = shot + np.float32(rng.uniform(0.004, 0.03)) * rng.standard_normal(shot.shape, dtype=np.float32)
    image = np.clip(shot * 255 + 0.5, 0, 255).astype(np.uint8)
    if quality is not None:
        _, packed = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.cvtColor(cv2.imdecode(packed, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), np.uint8)
    return image
