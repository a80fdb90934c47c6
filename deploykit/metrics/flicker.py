"""Temporal flicker: how much a mask's error changes from frame to frame while the scene itself only moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from deploykit.metrics.confusion import Mask, require_masks


def flicker(found: Sequence[Mask], expected: Sequence[Mask], motion: Sequence[NDArray[np.floating]]) -> float | None:
    """Return the mean change of ``found - expected`` between frames, followed along the true motion.

    ``found`` and ``expected`` are the masks (H, W) of T frames. ``motion`` has T - 1 arrays (H, W, 2): for each
    pixel of a frame the column and row, in pixels, where it was in the frame before, NaN where it was hidden. The
    error of a pixel is -1, 0 or 1; its change is taken to the nearest pixel of the frame before and averaged over
    the pixels that were inside that frame. So 0 is a mask whose errors stay on the things that they are on,
    however large they are, and the worst value is 2.

    None where no pixel of any frame was visible before. Raises ValueError for fewer than two frames and for
    numbers or sizes that do not fit together.
    """
    if len(found) < 2 or len(found) != len(expected) or len(motion) != len(found) - 1:
        raise ValueError(f"{len(found)} masks, {len(expected)} true masks and {len(motion)} motions do not fit")
    change, visible = 0, 0
    before: NDArray[np.int8] | None = None
    for index, (mask, truth) in enumerate(zip(found, expected, strict=True)):
        require_masks(mask, truth)
        error = mask.astype(np.int8) - truth.astype(np.int8)
        if before is not None:
            columns, rows, inside = _sources(motion[index - 1], error.shape, before.shape)
            change += int(np.abs(error[inside] - before[rows, columns]).sum(dtype=np.int64))
            visible += int(np.count_nonzero(inside))
        before = error
    return change / visible if visible else None


def _sources(
    motion: NDArray[np.floating], shape: tuple[int, ...], before: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64], Mask]:
    """Return column and row of the nearest pixel before, for the pixels (H, W) marked in the third array."""
    if motion.shape != (*shape, 2) or before != shape:
        raise ValueError(f"motion {motion.shape} and a frame before of {before} for a frame of {shape}")
    known = np.isfinite(motion).all(axis=2)
    nearest = np.floor(np.where(known[:, :, None], motion, -1.0) + 0.5)
    limits = np.array(shape[::-1], np.float64)
    inside = known & ((nearest >= 0) & (nearest < limits)).all(axis=2)
    columns, rows = nearest[inside].astype(np.int64).T
    return columns, rows, inside
