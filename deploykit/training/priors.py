"""Fake masks of the frame before, so that a network for video can be trained on single images.

Source: RCRNet, section 4.2.2: affine transformations of the ground-truth mask stand for the motion between frames.
The paper gives no ranges; those in ``Motion`` are ours. PortraitNet's configuration for video leaves the prior empty
with probability 0.5, which is also the state before a first frame.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Motion:
    """How far the portrait moves from one frame to the next, and how often there is no frame before.

    Each value is drawn uniformly, to both sides: ``rotation`` in degrees, ``resizing`` a change of the factor 1,
    ``shear`` a slope, ``translation`` a share of the side. ``softness`` is the largest deviation of the Gaussian that
    blurs the mask, as a share of its height: a network's probabilities have soft edges.
    """

    empty_probability: float = 0.5
    rotation: float = 10.0
    resizing: float = 0.1
    shear: float = 0.05
    translation: float = 0.1
    softness: float = 0.01


MOTION = Motion()


def fake_prior(mask: NDArray[np.uint8], rng: np.random.Generator, motion: Motion = MOTION) -> NDArray[np.float32]:
    """Return a probability (H, W), 0..1, of the portrait in a frame before that of ``mask`` (H, W) of 0 and 1.

    All 0 with ``motion.empty_probability``, otherwise the moved and softened mask. What moves in from outside the
    picture continues the mask at its edge, as a person who leaves the frame does.
    """
    height, width = mask.shape
    if rng.random() < motion.empty_probability:
        return np.zeros((height, width), np.float32)
    warp = motion_matrix(height, width, rng, motion)
    moved = cv2.warpAffine(
        mask.astype(np.float32), warp, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    sigma = float(rng.uniform(0, motion.softness)) * height
    # OpenCV takes a deviation of 0 for a request to choose one.
    softened = cv2.GaussianBlur(moved, (0, 0), sigma) if sigma > 0.1 else moved
    return np.asarray(np.clip(softened, 0, 1), np.float32)


def motion_matrix(height: int, width: int, rng: np.random.Generator, motion: Motion = MOTION) -> NDArray[np.float64]:
    """Return the 2 x 3 affine map from a pixel of the mask to its place in the frame before, about the middle."""
    angle, change, slope, x, y = rng.uniform(-1, 1, 5)
    angle = math.radians(angle * motion.rotation)
    factor = 1 + change * motion.resizing
    turned = factor * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear = turned @ np.array([[1, slope * motion.shear], [0, 1]])
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = motion.translation * np.array([x * width, y * height])
    return np.asarray(np.column_stack([linear, middle + shift - linear @ middle]), np.float64)
