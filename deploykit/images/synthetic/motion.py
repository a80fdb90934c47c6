"""Synthetic video clips of portraits, taken by a hand-held camera: frames whose motion is known to the pixel.

The camera moves by whole pixels, so a frame is cut out of one large picture and no resampling blurs it or its mask.
Exposure drifts and every frame has its own sensor noise, as in any video: these make masks flicker.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import ImageError
from deploykit.images.synthetic import LARGEST, SMALLEST, synthesize

MOTION_VERSION = 1
# The picture is larger than a frame by this share of its side, the room in which the camera moves.
ROOM = 0.25
# Standard deviations: the camera's push in each frame as a share of the side, exposure, and noise in grey levels.
PUSH = 0.008
EXPOSURE = 0.03
NOISE = 3.0
# How much of the velocity, and of the exposure's deviation, lasts until the next frame.
INERTIA = 0.85


@dataclass(frozen=True)
class Clip:
    """``frames`` (T, size, size, 3) uint8 RGB, ``masks`` (T, size, size) uint8, 1 where the person is.

    ``corners`` (T, 2) is where each frame's upper left corner lies in the large picture: column and row, in pixels.
    """

    frames: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    corners: NDArray[np.int64]

    def motion(self, frame: int) -> NDArray[np.float64]:
        """Return (size, size, 2): column and row in frame ``frame - 1`` of what each pixel of ``frame`` shows.

        Values outside 0 to size - 1 mean that it was out of the picture.
        """
        if not 1 <= frame < len(self.frames):
            raise ValueError(f"frame {frame} of {len(self.frames)} has no frame before it")
        rows, columns = np.indices(self.masks.shape[1:], dtype=np.float64)
        moved = self.corners[frame] - self.corners[frame - 1]
        return np.stack([columns + moved[0], rows + moved[1]], axis=2)


def synthesize_clip(seed: int, size: int = 224, frames: int = 16) -> Clip:
    """Return ``frames`` frames of the portrait of ``seed``; the same arguments give the same pixels.

    Raises ImageError for a negative seed, no frames or a size outside 64 to 1024.
    """
    if seed < 0 or frames < 1 or not SMALLEST <= size <= LARGEST:
        raise ImageError(
            "no synthetic clip can be drawn from this",
            found=f"seed {seed}, size {size}, {frames} frames",
            expected=f"a seed of at least 0, a size from {SMALLEST} to {LARGEST} and at least one frame",
        )
    room = round(size * ROOM)
    side = size + room
    portrait = synthesize(seed, min(side, LARGEST))
    picture, mask = portrait.image, portrait.mask
    if side > LARGEST:
        picture = np.asarray(cv2.resize(picture, (side, side), interpolation=cv2.INTER_LINEAR), np.uint8)
        mask = np.asarray(cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST), np.uint8)
    rng = np.random.default_rng([MOTION_VERSION, seed])
    corners = _walk(rng, frames, size, room)
    shots = [_shoot(picture[y : y + size, x : x + size], gain, rng) for (x, y), gain in _exposed(rng, corners)]
    masks = [mask[y : y + size, x : x + size] for x, y in corners]
    return Clip(np.stack(shots), np.stack(masks), corners)


def _walk(rng: np.random.Generator, frames: int, size: int, room: int) -> NDArray[np.int64]:
    """Return (frames, 2) corners from 0 to ``room``: a smooth walk that turns round at the ends."""
    place = np.array([room * rng.uniform(0.3, 0.7), room * rng.uniform(0.3, 0.7)])
    velocity = rng.normal(0, 2 * PUSH * size, 2)
    corners = []
    for _ in range(frames):
        corners.append(np.rint(place).astype(np.int64))
        velocity = INERTIA * velocity + rng.normal(0, PUSH * size, 2)
        outside = (place + velocity < 0) | (place + velocity > room)
        velocity = np.where(outside, -velocity, velocity)
        place = np.clip(place + velocity, 0, room)
    return np.stack(corners)


def _exposed(rng: np.random.Generator, corners: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], float]]:
    drift, pairs = 0.0, []
    for corner in corners:
        pairs.append((corner, 1 + drift))
        drift = INERTIA * drift + rng.normal(0, EXPOSURE * np.sqrt(1 - INERTIA**2))
    return pairs


def _shoot(pixels: NDArray[np.uint8], gain: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    noise = rng.standard_normal(pixels.shape, dtype=np.float32) * np.float32(NOISE)
    return np.clip(pixels * np.float32(gain) + noise + 0.5, 0, 255).astype(np.uint8)
