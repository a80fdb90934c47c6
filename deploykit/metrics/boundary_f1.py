"""F1 score of the portrait in a band around its true boundary (SINet, section 4)."""

from __future__ import annotations

import cv2
import numpy as np

from deploykit.metrics.confusion import Mask, confusion, require_masks

# SINet, section 4: a kernel of 15 x 15.
BAND_WIDTH = 15


def boundary_band(expected: Mask, width: int = BAND_WIDTH) -> Mask:
    """Return the truth dilated minus the truth eroded by a square of odd ``width`` (SINet, equation 1).

    These are the pixels whose square holds both classes; what lies outside the picture counts as neither.
    """
    if width < 3 or width % 2 == 0:
        raise ValueError(f"the width of the band must be odd and at least 3, not {width}")
    truth, square = expected.astype(np.uint8), np.ones((width, width), np.uint8)
    return np.asarray(cv2.dilate(truth, square) > cv2.erode(truth, square))


def boundary_f1(found: Mask, expected: Mask, width: int = BAND_WIDTH) -> float | None:
    """Return 2 TP / (2 TP + FP + FN) of the portrait's pixels inside the band, for masks (H, W).

    None where the truth is empty or fills the picture: then there is no band. Raises ValueError for masks of
    different sizes.
    """
    require_masks(found, expected)
    band = boundary_band(expected, width)
    if not band.any():
        return None
    counts = confusion(found[band][None], expected[band][None])
    right = 2 * counts.true_positive
    return right / (right + counts.false_positive + counts.false_negative)
