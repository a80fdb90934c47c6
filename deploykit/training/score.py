"""How well a network cuts out people: intersection over union on held-out portraits and on photos."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import nn

from deploykit.metrics.confusion import Mask, confusion
from deploykit.metrics.overlap import foreground_iou, two_class_miou
from deploykit.training.corpus import Pixels
from deploykit.training.loop import normalise
from deploykit.training.plan import TrainingPlan


@dataclass(frozen=True)
class Score:
    """Means over images: IoU of the person, and of the mean of person and background."""

    foreground_iou: float
    two_class_miou: float
    images: int


def iou(found: Mask, expected: Mask) -> float:
    """Return intersection over union of masks (H, W); 1 where both are empty."""
    return foreground_iou(confusion(found, expected))


def predict(network: nn.Module, plan: TrainingPlan, image: Pixels) -> Mask:
    """Return the person's mask (H, W) of an RGB image (H, W, 3) of 0..255; the network is in eval mode.

    For a network with a prior the image is a first frame: the prior is empty.
    """
    device = next(network.parameters()).device
    pixels = torch.from_numpy(np.ascontiguousarray(image)).to(device).float().permute(2, 0, 1)[None]
    prior = (torch.zeros_like(pixels[:, :1]),) if plan.has_prior else ()
    with torch.no_grad():
        output = network(normalise(pixels, plan), *prior)
    logits = output[0] if isinstance(output, tuple) else output
    return np.asarray(logits[0].argmax(0).bool().cpu().numpy())


def score(network: nn.Module, plan: TrainingPlan, portraits: Pixels) -> Score:
    """Return the score on ``portraits`` (n, H, W, 4), RGB and mask."""
    person, both = [], []
    for portrait in portraits:
        counts = confusion(predict(network, plan, portrait[:, :, :3]), portrait[:, :, 3] > 0)
        person.append(foreground_iou(counts))
        both.append(two_class_miou(counts))
    return Score(float(np.mean(person)), float(np.mean(both)), len(portraits))


def photo_iou(network: nn.Module, plan: TrainingPlan, photo: Pixels, expected: Mask) -> float:
    """Return the IoU on an RGB photo (H, W, 3) of any size, compared at the recipe's input size.

    The photo is stretched with bilinear, the mask with nearest-neighbour resampling, as the reference was made.
    """
    side = (plan.image.width, plan.image.height)
    small = np.asarray(cv2.resize(photo, side, interpolation=cv2.INTER_LINEAR), np.uint8)
    mask = cv2.resize(expected.astype(np.uint8), side, interpolation=cv2.INTER_NEAREST) > 0
    return iou(predict(network, plan, small), np.asarray(mask))
