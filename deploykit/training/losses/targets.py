"""What a batch of masks asks of a network: the mask itself and the maps that the papers' losses derive from it.

Every map is drawn per image by OpenCV, which is faster than pooling on a CPU and needs no other code on a GPU.
Widths in the papers are stated for one input size; ``odd_kernel`` and ``thickness`` carry them to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Mask = NDArray[np.uint8]


def odd_kernel(width: float, stated_for: int, height: int) -> int:
    """Return the odd kernel, at least 3, nearest to ``width`` pixels when ``stated_for`` becomes ``height``."""
    return max(3, 2 * round((width * height / stated_for - 1) / 2) + 1)


def thickness(width: float, stated_for: int, height: int) -> int:
    """Return the line thickness, at least 1, nearest to ``width`` pixels when ``stated_for`` becomes ``height``."""
    return max(1, round(width * height / stated_for))


def boundary_band(mask: Mask, kernel: int) -> Mask:
    """Return 1 where a ``kernel`` x ``kernel`` square around a pixel of ``mask`` (H, W) holds both classes.

    Dilation minus erosion (SINet, equation 1): half of the band lies on each side of the boundary, ``kernel - 1``
    pixels together. The edge of the image is no boundary.
    """
    square = np.ones((kernel, kernel), np.uint8)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, square), np.uint8)


def contour_lines(mask: Mask, width: int) -> Mask:
    """Return 1 on the outlines of ``mask`` (H, W), drawn ``width`` pixels thick, outlines of holes included.

    PortraitNet's text (section 3.2) names Canny; its released code draws contours, and so does this. OpenCV draws an
    even ``width`` one pixel thicker. A portrait that leaves the image is outlined along the edge of the image too.
    """
    found = cv2.findContours(mask, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    lines = np.zeros_like(mask)
    cv2.drawContours(lines, found[-2], -1, 1, width)
    return lines


def boundary_nearness(mask: Mask) -> NDArray[np.float32]:
    """Return 1 on the boundary of ``mask`` (H, W), falling linearly to 0 at the pixel farthest from it.

    Distances are Euclidean, to the nearest pixel that has one of the other class beside, above or below it. A mask of
    one class has no boundary: 0 everywhere. ELB, section 2.2.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    beside = cv2.morphologyEx(mask, cv2.MORPH_GRADIENT, cross)
    if not beside.any():
        return np.zeros(mask.shape, np.float32)
    distance = cv2.distanceTransform(1 - beside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(1 - distance / max(float(distance.max()), 1.0), np.float32)


@dataclass(frozen=True, eq=False)
class Targets:
    """The true masks of a batch: ``mask`` (N, H, W), int64, on the device of the network; 1 is the portrait.

    The derived maps are drawn when they are asked for.
    """

    mask: Tensor

    @cached_property
    def pixels(self) -> Mask:
        """The masks (N, H, W) in numpy."""
        return np.asarray(self.mask.to("cpu", torch.uint8).numpy(), np.uint8)

    @property
    def height(self) -> int:
        """The height of the masks in pixels, by which the widths of the papers are scaled."""
        return self.mask.shape[1]

    def band(self, kernel: int) -> Tensor:
        """Return ``boundary_band`` of every mask, (N, H, W) float32."""
        return self._drawn(lambda mask: boundary_band(mask, kernel))

    def contours(self, width: int) -> Tensor:
        """Return ``contour_lines`` of every mask, (N, H, W) float32."""
        return self._drawn(lambda mask: contour_lines(mask, width))

    def nearness(self) -> Tensor:
        """Return ``boundary_nearness`` of every mask, (N, H, W) float32."""
        return self._drawn(boundary_nearness)

    def _drawn(self, draw: Callable[[Mask], NDArray[np.uint8] | NDArray[np.float32]]) -> Tensor:
        maps = np.stack([draw(mask) for mask in self.pixels]).astype(np.float32, copy=False)
        return torch.from_numpy(maps).to(self.mask.device)
