"""Intersection over union: of the portrait, of portrait and background, and pooled over many images.

A class that neither mask has is agreed upon, so its IoU is 1; the papers leave 0 / 0 open.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploykit.metrics.confusion import Confusion


def foreground_iou(counts: Confusion) -> float:
    """Return the IoU of the portrait in one image: one summand of PortraitNet, equation 10."""
    return _ratio(counts.true_positive, counts.false_positive + counts.false_negative)


def two_class_miou(counts: Confusion) -> float:
    """Return the mean of the portrait's and the background's IoU in one image."""
    return (foreground_iou(counts) + _ratio(counts.true_negative, counts.false_positive + counts.false_negative)) / 2


def _ratio(intersection: int, difference: int) -> float:
    union = intersection + difference
    return intersection / union if union else 1.0


def pooled_two_class_miou(
    true_positive: NDArray[np.int64],
    false_positive: NDArray[np.int64],
    false_negative: NDArray[np.int64],
    true_negative: NDArray[np.int64],
    axis: int = -1,
) -> Any:
    """Return the mean IoU of both classes after summing the counts of all images along ``axis``.

    This is the mIoU of benchmarks that keep one confusion matrix for a whole dataset: large images count for more.
    """
    tp, fp, fn, tn = (
        np.sum(counts, axis=axis, dtype=np.float64)
        for counts in (true_positive, false_positive, false_negative, true_negative)
    )
    return (_ratios(tp, fp + fn) + _ratios(tn, fp + fn)) / 2


def _ratios(intersection: Any, difference: Any) -> Any:
    union = intersection + difference
    return np.where(union > 0, intersection / np.maximum(union, 1), 1.0)
