"""True masks on disk: which pixels are the portrait, or why a file does not say so without doubt."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import ImageError
from deploykit.metrics.confusion import Mask

SOFT = "a soft matte"

# Class numbers of label maps are small; the grey levels of a matte go up to the full scale.
MOST_CLASSES = 64


def read_mask(path: Path, threshold: float | None = None) -> Mask:
    """Return the portrait's pixels (H, W) of the mask at ``path``.

    A mask has one channel, or equal channels, and two levels: 0, and 1 or the full scale (255 in 8 bits). With
    ``threshold``, a share of the full scale, a soft matte is taken too: pixels of at least it are the portrait.

    Raises ImageError for everything else: unreadable files, colours, transparency, class numbers, soft mattes.
    """
    levels = _single_channel(_decode(path), path)
    full = int(np.iinfo(levels.dtype).max)
    present = np.unique(levels)
    if set(present.tolist()) <= {0, 1} or set(present.tolist()) <= {0, full}:
        return np.asarray(levels > 0)
    soft = len(present) > 2 and int(present[-1]) >= MOST_CLASSES
    if soft and threshold is not None:
        return np.asarray(levels >= threshold * full)
    listed = ", ".join(str(level) for level in present[:4]) + (", ..." if len(present) > 4 else "")
    hint = "; JPEG blurs masks, PNG keeps them" if path.suffix.lower() in (".jpg", ".jpeg") else ""
    raise ImageError(
        f"The mask is {SOFT}." if soft else "The mask is not binary.",
        where=str(path),
        found=f"{len(present)} levels, {listed}" + (hint if soft else ""),
        expected=f"the levels 0 and 1, or 0 and {full}",
        next_step="give --mask-threshold to cut mattes at a share of the full scale" if soft else None,
    )


def _decode(path: Path) -> NDArray[np.integer]:
    try:
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        image = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED) if encoded.size else None
    except OSError as error:
        raise ImageError("The mask cannot be read.", where=str(path), found=error.strerror) from error
    except cv2.error:
        image = None
    if image is None:
        raise ImageError(
            "The mask cannot be decoded.",
            where=str(path),
            found=f"{encoded.size} bytes that OpenCV does not recognise",
            expected="PNG, BMP, TIFF or another format without losses",
        )
    if image.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            "The mask has values of another kind.", where=str(path), found=str(image.dtype), expected="8 or 16 bits"
        )
    return np.asarray(image)


def _single_channel(image: NDArray[np.integer], path: Path) -> NDArray[np.integer]:
    if image.ndim == 2:
        return image
    channels = image.shape[2]
    if channels in (2, 4):
        if np.any(image[:, :, -1] != np.iinfo(image.dtype).max):
            raise ImageError(
                "The mask is transparent in places.",
                where=str(path),
                found="an alpha channel",
                expected="grey levels alone",
            )
        image = image[:, :, :-1]
    if np.any(image != image[:, :, :1]):
        raise ImageError(
            "The mask is in colour.", where=str(path), found="channels that differ", expected="grey levels alone"
        )
    return np.asarray(image[:, :, 0])
