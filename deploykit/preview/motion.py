"""Where each pixel of a frame was in the frame before: dense optical flow by DIS (dense inverse search).

Source: the virtual-background report whose network is mobilenetv3-sappm, section 3.4.2: with ``I`` the brightness, flow
``(u, v)`` obeys ``I_x u + I_y v + I_t = 0``, which assumes that a point keeps its brightness and moves little.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels
from deploykit.preview.choices import Preset

FloatArray = NDArray[np.float32]

# Flow is computed on frames whose longer side has at most so many pixels. Motion is smooth: more costs time alone.
LONGEST = 320
# DIS needs patches of 8 pixels on two levels.
_SHORTEST = 32
# Mean difference of brightness, of 255, that is left along the flow where a video cuts to another scene: noise of 20
# levels leaves about 8, another scene 40 and more.
CUT = 28.0
# A point is trusted to be the same one where its brightness, over so many pixels, differs no more than so many times
# as much as in the middle of all points, and not at all from the second number on. Measured in benchmarks/fusion.py.
_PATCH = 7
_SAME, _OTHER = 1.2, 2.0
# Grey levels that always count as noise.
_NOISE = 1.0


@dataclass(frozen=True)
class Motion:
    """From a frame back to the one before, at a reduced size (h, w).

    ``flow`` (h, w, 2) is column and row in pixels of that size: what the frame shows at ``x`` was at ``x + flow(x)``.
    ``trust`` (h, w), 0 to 1, says how well a point kept its brightness, which all optical flow assumes.
    """

    flow: FloatArray
    trust: FloatArray


class MotionTracker:
    """Follows a video frame by frame; ``cuts`` counts the places where nothing was to be followed."""

    def __init__(self, preset: Preset = Preset.FAST) -> None:
        self._dis = cv2.DISOpticalFlow.create(getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.name}"))
        self._before: NDArray[np.uint8] | None = None
        self.cuts = 0

    @property
    def size(self) -> tuple[int, int]:
        """The reduced size (h, w) of the last frame."""
        if self._before is None:
            raise ValueError("no frame was followed yet")
        return self._before.shape[0], self._before.shape[1]

    def follow(self, frame: Pixels) -> Motion | None:
        """Return the motion from ``frame`` (H, W, 3) back to the frame before it.

        None for the first frame, for one of another shape than the one before, and at a cut to another scene.
        """
        now = _reduced(frame)
        before, self._before = self._before, now
        if before is None or before.shape != now.shape:
            return None
        flow = np.asarray(self._dis.calc(now, before, None), np.float32)
        warped = cv2.remap(before, places(flow), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left = cv2.absdiff(now, warped)
        if cv2.mean(left)[0] > CUT:
            self.cuts += 1
            return None
        return Motion(flow, _trust(left))


def _trust(left: NDArray[np.uint8]) -> FloatArray:
    """Return 1 where the brightness ``left`` (h, w) along the flow is noise like everywhere, 0 where it is more."""
    local = cv2.blur(left.astype(np.float32), (_PATCH, _PATCH))
    usual = max(float(np.median(local[::2, ::2])), _NOISE)
    return np.asarray(np.clip((_OTHER - local / usual) / (_OTHER - _SAME), 0, 1), np.float32)


def places(flow: FloatArray) -> FloatArray:
    """Return (h, w, 2): the column and row in the frame before that ``flow`` (h, w, 2) points to from each pixel."""
    return np.asarray(cv2.add(flow, _grid(*flow.shape[:2])), np.float32)


def enlarged(flow: FloatArray, height: int, width: int) -> FloatArray:
    """Return ``flow`` (h, w, 2) for frames of (``height``, ``width``), in their pixels."""
    if flow.shape[:2] == (height, width):
        return flow
    ratio = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
    return np.asarray(cv2.resize(flow * ratio, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> FloatArray:
    """Return (height, width, 2): the column and row of each pixel."""
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    grid = np.asarray(cv2.merge([columns, rows]), np.float32)
    grid.flags.writeable = False
    return grid


def _reduced(frame: Pixels) -> NDArray[np.uint8]:
    """Return ``frame`` (H, W, 3) in grey, reduced; a tiny one enlarged to what DIS needs."""
    height, width = frame.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    size = (max(_SHORTEST, round(width * scale)), max(_SHORTEST, round(height * scale)))
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
