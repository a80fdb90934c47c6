"""PortraitNet: focal loss on the edge head, and agreement between two views of one image."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from deploykit.training.losses.cross_entropy import cross_entropy, full_precision
from deploykit.training.losses.targets import Targets, thickness


def focal_loss(logits: Tensor, target: Tensor, gamma: float = 2.0, constant_factor: bool = True) -> Tensor:
    """Return the mean of ``-(1 - p)^gamma log p`` with p the probability of the true class.

    ``logits`` are (N, classes, H, W), ``target`` (N, H, W) int64. PortraitNet, equation 2, as a mean instead of a sum.
    With ``constant_factor`` no gradient flows through ``(1 - p)^gamma``, as in the released code; the equation alone
    would let it.
    """
    each = cross_entropy(logits, target)
    missing = 1 - (-each).exp()
    if constant_factor:
        missing = missing.detach()
    return (missing**gamma * each).mean()


def consistency(student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Return the KL divergence from the teacher's to the student's softened probabilities, times temperature squared.

    Both are (N, classes, H, W). PortraitNet, equations 6 and 9; the mean is over pixels and classes, as in the
    released code. No gradient reaches the teacher.
    """
    student = F.log_softmax(full_precision(student_logits) / temperature, dim=1)
    teacher = F.log_softmax(full_precision(teacher_logits.detach()) / temperature, dim=1)
    return (teacher.exp() * (teacher - student)).mean() * temperature**2


@dataclass(frozen=True)
class TwoViews:
    """What the clean view of an image adds: its own cross entropy, and ``weight`` times ``consistency`` with it.

    PortraitNet, equations 5 and 7. The clean view (deformed, not textured) is the teacher of the textured one.
    """

    weight: float = 2.0
    temperature: float = 1.0

    def __call__(self, textured_logits: Tensor, clean_logits: Tensor, targets: Targets) -> Tensor:
        """Return the added loss (a scalar)."""
        agreement = consistency(textured_logits, clean_logits, self.temperature)
        return cross_entropy(clean_logits, targets.mask).mean() + self.weight * agreement


@dataclass(frozen=True)
class EdgeHeadLoss:
    """Cross entropy on the mask and ``edge_weight`` times focal loss on the edge head: PortraitNet, equations 1 to 3.

    The edge target is 1 on contours drawn with ``edge_width`` at ``stated_for`` pixels. For an edge head of lower
    resolution it is the largest value below each of the head's pixels, so that no thin line is lost. A network with
    several edge heads adds each; one without is trained by its cross entropy alone.

    The text weighs the edge head by 0.1 (section 4.4.1) and by 0.3 (equation 13); the released configurations say 0.1.
    """

    edge_weight: float = 0.1
    gamma: float = 2.0
    edge_width: int = 4
    stated_for: int = 224

    def __call__(self, outputs: tuple[Tensor, ...], targets: Targets) -> Tensor:
        """Return the loss (a scalar) of logits (N, classes, H, W) and edge logits (N, 2, at most H, at most W)."""
        logits, *heads = outputs
        loss = cross_entropy(logits, targets.mask).mean()
        if heads:
            lines = targets.contours(thickness(self.edge_width, self.stated_for, targets.height))
        for edges in heads:
            fitted = F.adaptive_max_pool2d(lines, (edges.shape[-2], edges.shape[-1]))
            loss = loss + self.edge_weight * focal_loss(edges, fitted.long(), self.gamma)
        return loss
