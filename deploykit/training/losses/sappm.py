"""MobileNetV3 + SAPPM: hard examples, deep supervision and a boundary branch (the report's section 3.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from deploykit.training.losses.cross_entropy import cross_entropy, full_precision
from deploykit.training.losses.targets import Targets, odd_kernel


def hard_examples(each: Tensor, confidence: float, kept_share: float) -> Tensor:
    """Return the mean of the pixel losses ``each`` (N, H, W) whose true class got less than ``confidence``.

    Where these are fewer than ``kept_share`` of all pixels, it is the mean of that share with the largest losses.
    Online hard example mining.
    """
    flat = each.flatten()
    hard = flat[flat.detach() > -math.log(confidence)]
    kept = max(1, int(flat.numel() * kept_share))
    return (hard if hard.numel() >= kept else flat.topk(kept, sorted=False).values).mean()


def balanced_boundary_loss(logits: Tensor, boundary: Tensor) -> Tensor:
    """Return the mean binary cross entropy of ``logits`` against ``boundary``, both (N, H, W), with balanced classes.

    A pixel of either class weighs as much as the share of the other class in the batch.
    """
    share = boundary.mean()
    weight = boundary * (1 - share) + (1 - boundary) * share
    return F.binary_cross_entropy_with_logits(logits, boundary, weight)


def _resized(logits: Tensor, targets: Targets) -> Tensor:
    size = targets.mask.shape[1:]
    if logits.shape[2:] == size:
        return full_precision(logits)
    return F.interpolate(full_precision(logits), (size[0], size[1]), mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class DeepSupervisionLoss:
    """``L_seg + auxiliary_weight x L_aux + boundary_weight x L_boundary``, the report's total loss, section 3.6.

    ``L_seg`` mines hard examples: pixels whose true class got less than ``confidence``, and at least ``kept_share`` of
    all. The report keeps at least 131072 pixels; its batches of 6 images of 512 x 512 on each device make that a
    twelfth, which fits every batch. ``L_aux`` is the mean cross entropy of the auxiliary head. ``L_boundary`` is the
    balanced binary cross entropy of the boundary branch against the boundary of the mask, ``boundary_width`` pixels
    wide at ``stated_for`` pixels (both from the released code). A branch of another size is resized to that of the
    mask, bilinearly, as in the code.
    """

    auxiliary_weight: float = 0.4
    boundary_weight: float = 2.0
    confidence: float = 0.9
    kept_share: float = 131072 / (6 * 512 * 512)
    boundary_width: int = 4
    stated_for: int = 512

    def __call__(self, outputs: tuple[Tensor, ...], targets: Targets) -> Tensor:
        """Return the loss (a scalar) of three outputs: logits, boundary logits, auxiliary logits.

        They are (N, classes, H, W), (N, 1, h, w) and (N, classes, h', w').
        """
        logits, boundary, auxiliary = outputs
        # A band of morphology is one pixel narrower than its kernel.
        band = targets.band(odd_kernel(self.boundary_width + 1, self.stated_for, targets.height))
        boundary = _resized(boundary, targets).squeeze(1)
        return (
            hard_examples(cross_entropy(logits, targets.mask), self.confidence, self.kept_share)
            + self.auxiliary_weight * cross_entropy(_resized(auxiliary, targets), targets.mask).mean()
            + self.boundary_weight * balanced_boundary_loss(boundary, band.to(boundary.dtype))
        )
