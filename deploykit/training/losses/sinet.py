"""SINet: cross entropy over the image, and once more over a band along the boundary."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from deploykit.training.losses.cross_entropy import cross_entropy
from deploykit.training.losses.targets import Targets, odd_kernel


@dataclass(frozen=True)
class BandCrossEntropy:
    """SINet, section 3.3, equation 1 and the one below it: ``CE over P + weight x CE over B``.

    B is where dilation and erosion with a ``kernel`` x ``kernel`` square differ, 15 at ``stated_for`` 224 pixels.
    The text gives no value for its lambda, ``weight`` here; the released code uses 0.5. Both terms are means over
    their own pixels. The code weighs the classes too, and trains some of its networks with a Lovasz hinge: neither is
    in the paper, and neither is here.
    """

    weight: float = 0.5
    kernel: int = 15
    stated_for: int = 224

    def __call__(self, outputs: tuple[Tensor, ...], targets: Targets) -> Tensor:
        """Return the loss (a scalar) of the one output, logits (N, classes, H, W)."""
        (logits,) = outputs
        each = cross_entropy(logits, targets.mask)
        band = targets.band(odd_kernel(self.kernel, self.stated_for, targets.height))
        return each.mean() + self.weight * (each * band).sum() / band.sum().clamp(min=1)
