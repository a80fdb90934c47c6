"""Edge IoU: intersection over union in which pixels near the true portrait's boundary weigh more.

PortraitNet, equations 11 and 12. The weights vanish outside the true mask, so what is found there by mistake costs
nothing: a mask of nothing but foreground scores 1. The figure is reported because the paper prints it; nothing should
be decided by it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.metrics.confusion import Mask, require_masks

# The sharpest of the widths in PortraitNet, Table 2: 3, 5, 10, 20, 40 and 80 pixels.
DEFAULT_SIGMA = 3.0
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def edge_weights(expected: Mask, sigma: float) -> NDArray[np.float64]:
    """Return the weights (H, W) of PortraitNet, equation 12, for the true mask ``expected``; ``sigma`` in pixels.

    The boundary is the mask's pixels with a background pixel above, below, left or right; distances to it are
    Euclidean and 0 on it. The picture's frame is no boundary. Without any boundary every weight is 0.
    """
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, not {sigma}")
    truth = expected.astype(np.uint8)
    boundary = truth & ~cv2.erode(truth, _CROSS)
    if not boundary.any():
        return np.zeros(expected.shape)
    distance = cv2.distanceTransform(1 - boundary, cv2.DIST_L2, cv2.DIST_MASK_PRECISE).astype(np.float64)
    return np.where(expected, np.exp(-(distance**2) / (2 * sigma**2)), 0.0)


def edge_iou(found: Mask, expected: Mask, sigma: float = DEFAULT_SIGMA) -> float | None:
    """Return one summand of PortraitNet, equation 11, for masks (H, W).

    None where it is 0 / 0: the true mask is empty or fills the picture, so that there is no boundary.
    Raises ValueError for masks of different sizes and for a ``sigma`` that is not positive.
    """
    require_masks(found, expected)
    weights = edge_weights(expected, sigma)
    # Both sums run over the whole picture in one order, so that rounding lifts no score above 1.
    union = float((weights * (found | expected)).sum())
    return float((weights * (found & expected)).sum()) / union if union else None
