"""The person over another ground, and several pictures beside each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels

FloatArray = NDArray[np.float32]
_LEAST_LABEL, _LABEL_SHARE = 20, 0.06
# Height of OpenCV's Hershey letters in pixels at scale 1.
_LETTER = 30.0
_WIDE = 3
# Probabilities between these make a soft edge; what is surer than that is all person or all background, or else the
# background would shine through the person and leave a haze of itself behind.
_BACKGROUND, _PERSON = 0.25, 0.75


def over(frame: Pixels, ground: Pixels, alpha: FloatArray) -> Pixels:
    """Return ``alpha·frame + (1 - alpha)·ground``, pixels (H, W, 3) and ``alpha`` (H, W) from 0 to 1."""
    return np.asarray(cv2.blendLinear(frame, ground, alpha, 1 - alpha), np.uint8)


def grey(alpha: FloatArray) -> Pixels:
    """Return ``alpha`` (H, W), 0 to 1, as levels of grey (H, W)."""
    return np.asarray(np.rint(alpha * np.float32(255)), np.uint8)


def in_colour(level: Pixels) -> Pixels:
    """Return levels of grey (H, W) as a picture (H, W, 3)."""
    return np.asarray(cv2.merge([level, level, level]), np.uint8)


def cut_out(frame: Pixels, alpha: FloatArray) -> Pixels:
    """Return ``frame`` (H, W, 3) with ``alpha`` (H, W), 0 to 1, as its fourth channel, not multiplied into the others.

    Where nothing is to be seen there is no colour either: whoever gets the picture does not get its background.
    """
    seen = grey(alpha)
    return np.where(seen[:, :, None] > 0, np.dstack([frame, seen]), np.uint8(0))


def soft_edge(alpha: FloatArray) -> FloatArray:
    """Return how much of the person a pixel shows for its probability ``alpha`` (H, W): smooth from 0 to 1.

    0 below 1/4, 1 above 3/4, in between ``3t² - 2t³`` with t from 0 to 1; one half stays one half.
    """
    share = np.clip((alpha - np.float32(_BACKGROUND)) * np.float32(1 / (_PERSON - _BACKGROUND)), 0, 1)
    return np.asarray(share * share * (3 - 2 * share), np.float32)


def hardened(alpha: FloatArray) -> FloatArray:
    """Return 1 where ``alpha`` (H, W) is above one half, else 0."""
    return np.asarray(alpha > 0.5, np.float32)


def beside_each_other(tiles: Sequence[tuple[str, Pixels]]) -> Pixels:
    """Return the labelled ``tiles`` (H, W, 3), all of one size, as one picture: a row, more than three as a grid.

    One tile alone is returned as it is, without its label.
    """
    if len(tiles) == 1:
        return tiles[0][1]
    columns = len(tiles) if len(tiles) <= _WIDE else math.ceil(math.sqrt(len(tiles)))
    labelled = [_labelled(*tile) for tile in tiles]
    labelled += [np.zeros_like(labelled[0])] * (-len(labelled) % columns)
    rows = [np.concatenate(labelled[start : start + columns], axis=1) for start in range(0, len(labelled), columns)]
    return np.concatenate(rows, axis=0)


def _labelled(name: str, pixels: Pixels) -> Pixels:
    """Return ``pixels`` with ``name`` on a dark bar above them."""
    height, width = pixels.shape[:2]
    bar = np.full((max(_LEAST_LABEL, round(_LABEL_SHARE * height)), width, 3), 32, np.uint8)
    text = name.encode("ascii", "replace").decode()
    scale = 0.6 * len(bar) / _LETTER
    (across, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    scale *= min(1.0, 0.94 * width / max(across, 1))
    place = (round(0.03 * width), round(0.72 * len(bar)))
    cv2.putText(bar, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (240, 240, 240), 1, cv2.LINE_AA)
    return np.concatenate([bar, pixels], axis=0)
