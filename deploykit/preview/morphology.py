"""Erosion, dilation and their sequence on masks, soft or not.

Source: the virtual-background report whose network is mobilenetv3-sappm, section 3.4.1.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import UsageError

FloatArray = NDArray[np.float32]
LARGEST_KERNEL = 255


def erode(mask: FloatArray, kernel: int) -> FloatArray:
    """Return the smallest value of ``mask`` (H, W) in a square of ``kernel`` pixels around each pixel.

    ``dst(x, y) = min src(x + x', y + y')`` over the square; what lies outside the picture does not count.
    """
    return np.asarray(cv2.erode(mask, _square(kernel)), np.float32)


def dilate(mask: FloatArray, kernel: int) -> FloatArray:
    """Return the largest value of ``mask`` (H, W) in a square of ``kernel`` pixels around each pixel.

    ``dst(x, y) = max src(x + x', y + y')`` over the square; what lies outside the picture does not count.
    """
    return np.asarray(cv2.dilate(mask, _square(kernel)), np.float32)


def opening(mask: FloatArray, kernel: int) -> FloatArray:
    """Return ``mask`` (H, W) eroded, then dilated: what is narrower than ``kernel`` pixels goes, the rest stays."""
    return dilate(erode(mask, kernel), kernel)


def require_kernel(kernel: int) -> None:
    """Raise UsageError unless ``kernel`` is the odd side of a square that has a centre."""
    if not 3 <= kernel <= LARGEST_KERNEL or kernel % 2 == 0:
        raise UsageError(
            "The kernel of the opening is out of range.",
            where="--open",
            found=str(kernel),
            expected=f"an odd number of pixels from 3 to {LARGEST_KERNEL}",
        )


def _square(kernel: int) -> NDArray[np.uint8]:
    return np.ones((kernel, kernel), np.uint8)
