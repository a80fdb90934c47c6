"""The metrics of one image and of one clip, as every subject is scored."""

from __future__ import annotations

import numpy as np

from deploykit.evaluation.predict import Predictor
from deploykit.evaluation.records import ClipScore, ImageScore
from deploykit.images.synthetic.motion import Clip
from deploykit.metrics.accuracy import mean_class_accuracy, pixel_accuracy
from deploykit.metrics.boundary_f1 import boundary_f1
from deploykit.metrics.confusion import Mask, confusion
from deploykit.metrics.edge_iou import edge_iou
from deploykit.metrics.flicker import flicker
from deploykit.metrics.overlap import foreground_iou, two_class_miou


def score_image(name: str, found: Mask, expected: Mask, edge_sigma: float) -> ImageScore:
    """Return every metric of the mask ``found`` against the truth ``expected``, both (H, W)."""
    counts = confusion(found, expected)
    return ImageScore(
        name=name,
        height=expected.shape[0],
        width=expected.shape[1],
        counts=counts,
        foreground_iou=foreground_iou(counts),
        two_class_miou=two_class_miou(counts),
        edge_iou=edge_iou(found, expected, edge_sigma),
        boundary_f1=boundary_f1(found, expected),
        pixel_accuracy=pixel_accuracy(counts),
        mean_class_accuracy=mean_class_accuracy(counts),
    )


def score_clip(predictor: Predictor, clip: Clip, seed: int) -> ClipScore:
    """Return the score of ``predictor`` on ``clip``, frame after frame, its feedback carried from one to the next."""
    feedback = predictor.first_feedback()
    found = []
    for frame in clip.frames:
        mask, feedback = predictor.predict(frame, feedback)
        found.append(mask)
    expected = [mask > 0 for mask in clip.masks]
    motion = [clip.motion(index) for index in range(1, len(clip.frames))]
    overlaps = [foreground_iou(confusion(*pair)) for pair in zip(found, expected, strict=True)]
    return ClipScore(seed, len(found), flicker(found, expected, motion), float(np.mean(overlaps)))
