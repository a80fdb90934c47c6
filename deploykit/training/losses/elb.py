"""ELB: cross entropy with weights that grow towards the boundary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deploykit.training.losses.cross_entropy import cross_entropy
from deploykit.training.losses.targets import Targets


@dataclass(frozen=True)
class AdaptiveWeightLoss:
    """ELB's adaptive weight loss, section 2.2: the mean of ``(1 + g)`` times the cross entropy of a pixel.

    The text makes g by "normalizing the distance of each pixel to [0, 1]", which alone would weigh a pixel more the
    farther it is from the boundary; its purpose and its Figure 4 say the opposite. So g is 1 minus the distance, over
    the largest distance in that image: 1 on the boundary and 0 at the farthest pixel.
    """

    def __call__(self, outputs: tuple[Tensor, ...], targets: Targets) -> Tensor:
        """Return the loss (a scalar) of the one output, logits (N, classes, H, W)."""
        (logits,) = outputs
        return (cross_entropy(logits, targets.mask) * (1 + targets.nearness())).mean()
