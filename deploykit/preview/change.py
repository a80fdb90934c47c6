"""How much masks change from frame to frame where there is no truth: along the optical flow.

The metric is that of ``evaluate``, with the flow for the true motion and an empty truth: a change of a mask that the
scene does not make is flicker. What the flow gets wrong, and what people really do, counts too.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.metrics.flicker import Visible, change_along, visible_before
from deploykit.preview.motion import Motion, places

FloatArray = NDArray[np.float32]


class ChangeMeter:
    """The change of one sequence of masks, summed up frame by frame."""

    def __init__(self) -> None:
        self._before: NDArray[np.int8] | None = None
        self._change = self._seen = 0

    def add(self, alpha: FloatArray, visible: Visible | None, size: tuple[int, int]) -> None:
        """Take the next mask (H, W), above one half the person; ``visible`` None where it follows no other.

        It is compared at ``size`` (h, w), at which ``visible`` is.
        """
        small = cv2.resize(alpha, size[::-1], interpolation=cv2.INTER_AREA)
        now = np.asarray(small > 0.5, np.int8)
        if visible is not None and self._before is not None and self._before.shape == now.shape:
            self._change += change_along(now, self._before, visible)
            self._seen += len(visible.rows)
        self._before = now

    @property
    def flicker(self) -> float | None:
        """The share of pixels whose class changed; None where no mask followed another one."""
        return self._change / self._seen if self._seen else None


def seen_before(motion: Motion) -> Visible:
    """Return the pixels of a frame that the frame before shows, as ``motion`` (h, w) says."""
    height, width = motion.flow.shape[:2]
    return visible_before(places(motion.flow), (height, width), (height, width))
