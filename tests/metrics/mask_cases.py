"""Masks on which the metrics are compared with other implementations."""

from __future__ import annotations

import cv2
import numpy as np


def blob(seed: int, shape: tuple[int, int] = (48, 40)) -> np.ndarray:
    """A random smooth mask with holes, one that usually touches the picture's frame."""
    noise = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return cv2.GaussianBlur(noise, (0, 0), 4) > 0


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of found and true masks: unlike ones, nearly equal ones, and the extremes."""
    found = [(blob(seed), blob(seed + 100)) for seed in range(6)]
    for seed in range(4):
        truth = blob(seed)
        wrong = truth.copy()
        wrong[10:13, 5:30] ^= True
        found.append((wrong, truth))
    one = np.zeros((48, 40), bool)
    one[20, 20] = True
    empty, full = np.zeros((48, 40), bool), np.ones((48, 40), bool)
    return [*found, (one, blob(1)), (blob(1), one), (~blob(2), blob(2)), (empty, blob(3)), (full, blob(3))]
