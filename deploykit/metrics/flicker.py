"""Temporal flicker: how much a mask's error changes from frame to frame while the scene itself only moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deploykit.metrics.confusion import Mask, require_masks


class Visible(NamedTuple):
    """The N pixels of a frame (H, W) that the frame before shows: ``inside`` (H, W) marks them.

    ``columns`` and ``rows`` (N,) are the nearest pixels before.
    """

    columns: NDArray[np.int64]
    rows: NDArray[np.int64]
    inside: Mask


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
    change, seen = 0, 0
    before: NDArray[np.int8] | None = None
    for index, (mask, truth) in enumerate(zip(found, expected, strict=True)):
        require_masks(mask, truth)
        error = mask.astype(np.int8) - truth.astype(np.int8)
        if before is not None:
            visible = visible_before(motion[index - 1], error.shape, before.shape)
            change += change_along(error, before, visible)
            seen += len(visible.rows)
        before = error
    return change / seen if seen else None


def visible_before(motion: NDArray[np.floating], shape: tuple[int, ...], before: tuple[int, ...]) -> Visible:
    """Return which pixels of a frame of ``shape`` the frame ``before`` shows, and where, as ``motion`` says.

    Raises ValueError for shapes that do not fit together.
    """
    if motion.shape != (*shape, 2) or before != shape:
        raise ValueError(f"motion {motion.shape} and a frame before of {before} for a frame of {shape}")
    columns, rows = (np.floor(motion[:, :, axis] + 0.5) for axis in range(2))
    height, width = shape
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)  # NaN is nowhere
    return Visible(columns[inside].astype(np.int64), rows[inside].astype(np.int64), inside)


def change_along(now: NDArray[np.int8], before: NDArray[np.int8], visible: Visible) -> int:
    """Return the sum of the absolute changes from ``before`` to ``now``, errors (H, W), over what is ``visible``."""
    changed = now[visible.inside] - before[visible.rows, visible.columns]
    return int(np.abs(changed).sum(dtype=np.int64))
