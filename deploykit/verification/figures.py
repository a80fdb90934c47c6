"""Figures of one output beside those of ``compare``: cosine, overlap of masks, and where the worst value is."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.metrics.confusion import Mask, confusion
from deploykit.metrics.overlap import foreground_iou, two_class_miou
from deploykit.records import Comparison
from deploykit.verification.records import WorstValue
from deploykit.verify.samples import Sample

Values = Sequence[NDArray[np.floating]]
_UNDECIDED = -1


def cosine(found: Values, reference: Values) -> float | None:
    """Return the cosine of the angle between all values of both; None where one is zero or not finite."""
    a, b = (np.concatenate([np.ravel(array).astype(np.float64) for array in values]) for values in (found, reference))
    with np.errstate(all="ignore"):
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        product = float(a @ b)
    return max(-1.0, min(1.0, product / norm)) if 0 < norm < np.inf and np.isfinite(product) else None


def labels(scores: NDArray[np.floating]) -> NDArray[np.intp]:
    """Return the class (H, W) of each pixel of ``scores`` (1, C, H, W); -1 where a score is NaN."""
    best = scores[0].argmax(axis=0)
    return np.where(np.isnan(scores[0]).any(axis=0), _UNDECIDED, best)


def mean_iou(found: Values, reference: Values, samples: Sequence[Sample]) -> float | None:
    """Return the mean IoU over classes and pictures of both masks; None where no sample is a picture."""
    means = []
    for a, b, sample in zip(found, reference, samples, strict=True):
        if sample.picture:
            ours, theirs = labels(a), labels(b)
            classes = range(b.shape[1])
            means.append(np.mean([foreground_iou(confusion(ours == k, theirs == k)) for k in classes]))
    return float(np.mean(means)) if means else None


def truth_miou(scores: Values, samples: Sequence[Sample]) -> float | None:
    """Return the mean IoU with the true masks, every class but the first being the person; None without any."""
    means = [
        two_class_miou(confusion(labels(one) > 0, _sized(sample.truth, one)))
        for one, sample in zip(scores, samples, strict=True)
        if sample.truth is not None
    ]
    return float(np.mean(means)) if means else None


def _sized(truth: Mask, scores: NDArray[np.floating]) -> Mask:
    rows, columns = scores.shape[2:]
    return np.asarray(cv2.resize(truth.astype(np.uint8), (columns, rows), interpolation=cv2.INTER_NEAREST) > 0)


def worst_value(comparison: Comparison, found: Values, reference: Values, samples: Sequence[Sample]) -> WorstValue:
    """Return the place of ``comparison``'s largest error with the values on both sides."""
    index, *place = comparison.worst_index
    # compare() leaves the batch axis out.
    at = (0, *place)
    return WorstValue(samples[index].name, tuple(place), float(found[index][at]), float(reference[index][at]))
