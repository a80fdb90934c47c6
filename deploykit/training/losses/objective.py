"""The loss of a network as the training loop sees it: one call, with one view of every image or with two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from deploykit.training.losses.portraitnet import TwoViews
from deploykit.training.losses.targets import Targets


class Loss(Protocol):
    """A loss of what a network's forward returns in training form: logits at the size of the input, then its heads."""

    def __call__(self, outputs: tuple[Tensor, ...], targets: Targets) -> Tensor:
        """Return a scalar."""
        ...


@dataclass(frozen=True)
class Objective:
    """What training minimises: ``loss`` of the augmented images and, where the paper asks for it, of two views.

    ``views`` is None where a network is trained on one view of each image.
    """

    loss: Loss
    views: TwoViews | None = None

    def __call__(
        self, outputs: tuple[Tensor, ...], targets: Targets, clean_outputs: tuple[Tensor, ...] | None = None
    ) -> Tensor:
        """Return the scalar to minimise.

        ``outputs`` are those for the textured images, and ``clean_outputs`` those for the same images before texture
        augmentation, given exactly when ``views`` is. Raises ValueError otherwise.
        """
        if (clean_outputs is None) != (self.views is None):
            raise ValueError("the outputs for the clean view are needed exactly where the objective has two views")
        loss = self.loss(outputs, targets)
        if self.views is None or clean_outputs is None:
            return loss
        return loss + self.views(outputs[0], clean_outputs[0], targets)
