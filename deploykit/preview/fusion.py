"""Temporal fusion: a mask is blended with the one before it, which is moved along the optical flow.

Source: the virtual-background report whose network is mobilenetv3-sappm, section 3.4.2:
1. DIS flow between the frame and the one before;
2. the prediction ``P``: the last fused mask moved along the flow;
3. the weight ``W`` from the flow's magnitude;
4. ``F = S·W + P·(1 - W)``, where ``S`` is the frame's own mask.

The report gives no formula for ``W``. Here ``W = STILL + (1 - STILL)·min(1, |flow| / FAST)``: the faster a thing moves,
the less its flow is to be trusted and the more the new mask counts; at ``FAST`` and beyond it alone does. Ours: where
a point did not keep its brightness, which the section names as what every flow assumes, ``W`` goes to 1 as well, so
that nothing drags the edge of what it uncovers behind it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.preview.motion import Motion, enlarged, places

FloatArray = NDArray[np.float32]

# The share of the new mask where nothing moves, and the motion from which on it counts alone: a share of the frame's
# longer side from one frame to the next. Measured in benchmarks/fusion.py.
STILL = 0.4
FAST = 0.1


def moved(mask: FloatArray, flow: FloatArray, otherwise: FloatArray) -> FloatArray:
    """Return the prediction ``P`` (H, W): ``mask`` (H, W) of the frame before, moved along ``flow`` (H, W, 2).

    ``P(x) = mask(x + flow(x))``, bilinear; ``otherwise`` (H, W) where that lies outside the picture.
    """
    target = otherwise.copy()
    cv2.remap(mask, places(flow), None, cv2.INTER_LINEAR, dst=target, borderMode=cv2.BORDER_TRANSPARENT)
    return target


def weight(flow: FloatArray, still: float = STILL, fast: float = FAST) -> FloatArray:
    """Return ``W`` (H, W) from the magnitude of ``flow`` (H, W, 2): from ``still`` to 1, see the module.

    ``fast`` is a share of the longer side.
    """
    magnitude = cv2.magnitude(*cv2.split(flow))
    full = np.float32(fast * max(flow.shape[:2]))
    return np.asarray(still + (1 - still) * np.minimum(magnitude / full, 1), np.float32)


def fuse(segmentation: FloatArray, prediction: FloatArray, own: FloatArray) -> FloatArray:
    """Return ``F = S·W + P·(1 - W)`` for the masks ``S`` and ``P`` and the weight ``W = own``, all (H, W)."""
    return np.asarray(prediction + (segmentation - prediction) * own, np.float32)


class Fuser:
    """The fused masks of one artifact, one frame after the other."""

    def __init__(self, still: float = STILL, fast: float = FAST) -> None:
        self._still, self._fast = still, fast
        self._last: FloatArray | None = None

    def next(self, segmentation: FloatArray, motion: Motion | None) -> FloatArray:
        """Return the fused mask of the frame whose own is ``segmentation`` (H, W).

        ``motion`` leads to the frame before, as ``MotionTracker`` returns it; without one the mask begins anew.
        """
        last, size = self._last, segmentation.shape[::-1]
        if last is None or motion is None or last.shape != segmentation.shape:
            self._last = segmentation
            return segmentation
        small = 1 - (1 - weight(motion.flow, self._still, self._fast)) * motion.trust
        own = np.asarray(cv2.resize(small, size, interpolation=cv2.INTER_LINEAR), np.float32)
        prediction = moved(last, enlarged(motion.flow, *segmentation.shape), segmentation)
        self._last = fuse(segmentation, prediction, own)
        return self._last
