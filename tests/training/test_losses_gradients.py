"""Gradients of the losses against finite differences in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.autograd.gradcheck import GradcheckError

from deploykit.training.losses import (
    AdaptiveWeightLoss,
    BandCrossEntropy,
    DeepSupervisionLoss,
    EdgeHeadLoss,
    Loss,
    Targets,
    consistency,
)
from deploykit.training.losses.cross_entropy import cross_entropy
from deploykit.training.losses.portraitnet import focal_loss
from deploykit.training.losses.sappm import balanced_boundary_loss, hard_examples

SIDE = 8


@pytest.fixture
def mask() -> Tensor:
    found = torch.zeros(2, SIDE, SIDE, dtype=torch.long)
    found[0, 2:6, 3:] = 1
    found[1, 5:, :4] = 1
    return found


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("loss", "shapes"),
    [
        (BandCrossEntropy(), [(2, 2, SIDE, SIDE)]),
        (AdaptiveWeightLoss(), [(2, 2, SIDE, SIDE)]),
        # gamma = 0 leaves no factor that the released code would hold constant.
        (EdgeHeadLoss(gamma=0.0), [(2, 2, SIDE, SIDE), (2, 2, SIDE // 2, SIDE // 2)]),
        (DeepSupervisionLoss(), [(2, 2, SIDE, SIDE), (2, 1, SIDE // 4, SIDE // 4), (2, 2, SIDE // 2, SIDE // 2)]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_gradient_of_each_loss(loss: Loss, shapes: list[tuple[int, ...]], mask: Tensor) -> None:
    outputs = [logits(*shape, seed=index) for index, shape in enumerate(shapes)]
    assert gradcheck(lambda *given: loss(given, Targets(mask)), outputs)


def test_gradient_of_cross_entropy(mask: Tensor) -> None:
    assert gradcheck(lambda given: cross_entropy(given, mask), logits(2, 2, SIDE, SIDE))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradient_of_consistency(temperature: float) -> None:
    teacher = logits(2, 2, 3, 3, seed=1).detach()
    assert gradcheck(lambda student: consistency(student, teacher, temperature), logits(2, 2, 3, 3))


def test_gradient_of_hard_examples() -> None:
    each = logits(2, 3, 3).detach().exp().requires_grad_()
    assert gradcheck(lambda given: hard_examples(given, 0.9, 0.1), each)
    assert gradcheck(lambda given: hard_examples(given, 1e-9, 0.4), each)


def test_gradient_of_the_boundary_branch(mask: Tensor) -> None:
    assert gradcheck(lambda given: balanced_boundary_loss(given, mask.double()), logits(2, SIDE, SIDE))


def test_gradient_of_focal_loss(mask: Tensor) -> None:
    given = logits(2, 2, SIDE, SIDE)
    assert gradcheck(lambda one: focal_loss(one, mask, constant_factor=False), given)
    with pytest.raises(GradcheckError):
        gradcheck(lambda one: focal_loss(one, mask, constant_factor=True), given)


def test_focal_factor_is_constant_in_the_gradient(mask: Tensor) -> None:
    """With the factor held constant the gradient is that of cross entropy, pixel by pixel, times the factor."""
    given = logits(2, 2, SIDE, SIDE)
    focal_loss(given, mask).backward()
    probability = given.detach().softmax(dim=1)
    truth = torch.nn.functional.one_hot(mask, 2).permute(0, 3, 1, 2)
    factor = (1 - (probability * truth).sum(dim=1, keepdim=True)) ** 2
    assert given.grad is not None
    assert torch.allclose(given.grad, factor * (probability - truth) / mask.numel())
