"""Values of the losses, computed by hand."""

from __future__ import annotations

import dataclasses
import importlib
import math

import pytest
import torch
from torch import Tensor, nn

from deploykit.models.table import MODELS
from deploykit.training.losses import (
    LOSSES,
    AdaptiveWeightLoss,
    BandCrossEntropy,
    DeepSupervisionLoss,
    EdgeHeadLoss,
    Targets,
    TwoViews,
    consistency,
)
from deploykit.training.losses.cross_entropy import cross_entropy
from deploykit.training.losses.portraitnet import focal_loss
from deploykit.training.losses.sappm import balanced_boundary_loss, hard_examples

LN2 = math.log(2)


def certainty(mask: Tensor, probability: Tensor | float) -> Tensor:
    """Return logits (N, 2, H, W) whose softmax gives the true class of ``mask`` the ``probability``."""
    odds = torch.as_tensor(probability, dtype=torch.float64).logit() * torch.ones(mask.shape)
    return torch.stack([torch.where(mask == 1, 0.0, odds), torch.where(mask == 1, odds, 0.0)], dim=1)


@pytest.fixture
def half() -> Tensor:
    """A mask of 224 x 224 whose right half is the portrait."""
    mask = torch.zeros(1, 224, 224, dtype=torch.long)
    mask[:, :, 112:] = 1
    return mask


def test_cross_entropy_is_minus_log_p(half: Tensor) -> None:
    for probability in (0.75, 0.25):
        each = cross_entropy(certainty(half, probability), half)
        assert each.shape == half.shape
        assert torch.allclose(each, torch.full_like(each, -math.log(probability)))


def test_losses_are_computed_in_full_precision(half: Tensor) -> None:
    logits = certainty(half, 0.999)
    exact = cross_entropy(logits.bfloat16().double(), half).mean()
    assert cross_entropy(logits.bfloat16(), half).dtype is torch.float32
    assert cross_entropy(logits.bfloat16(), half).mean().item() == pytest.approx(exact.item(), rel=1e-4)


def test_sinet_counts_the_band_once_more(half: Tensor) -> None:
    probability = torch.full((1, 224, 224), 0.9, dtype=torch.float64)
    probability[:, :, 105:119] = 0.5
    outputs = (certainty(half, probability),)
    mean = (210 * -math.log(0.9) + 14 * LN2) / 224
    assert BandCrossEntropy()(outputs, Targets(half)).item() == pytest.approx(mean + 0.5 * LN2)
    assert BandCrossEntropy(weight=0.9)(outputs, Targets(half)).item() == pytest.approx(mean + 0.9 * LN2)
    narrow = BandCrossEntropy(kernel=3)(outputs, Targets(half)).item()
    assert narrow == pytest.approx(mean + 0.5 * LN2), "the narrow band lies in the wide one"
    wide = BandCrossEntropy(kernel=29)(outputs, Targets(half)).item()
    assert wide == pytest.approx(mean + 0.5 * (LN2 - math.log(0.9)) / 2)


def test_losses_of_a_mask_of_one_class_are_finite() -> None:
    empty = torch.zeros(1, 32, 32, dtype=torch.long)
    outputs = certainty(empty, 0.75), certainty(empty, 0.75), certainty(empty, 0.75)
    expected = -math.log(0.75)
    assert BandCrossEntropy()(outputs[:1], Targets(empty)).item() == pytest.approx(expected)
    assert AdaptiveWeightLoss()(outputs[:1], Targets(empty)).item() == pytest.approx(expected)
    assert EdgeHeadLoss()(outputs[:2], Targets(empty)).item() == pytest.approx(expected * (1 + 0.1 * 0.25**2))
    boundary = torch.zeros(1, 1, 32, 32)
    assert DeepSupervisionLoss()((outputs[0], boundary, outputs[2]), Targets(empty)).item() == pytest.approx(
        expected * 1.4
    )


@pytest.mark.parametrize("probability", [0.75, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_focal_loss_hardly_counts_what_is_right(half: Tensor, probability: float, gamma: float) -> None:
    expected = (1 - probability) ** gamma * -math.log(probability)
    for constant_factor in (True, False):
        found = focal_loss(certainty(half, probability), half, gamma, constant_factor)
        assert found.item() == pytest.approx(expected)


def test_consistency_is_the_softened_divergence() -> None:
    student = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    teacher = torch.stack([torch.zeros(1, 3, 3), torch.full((1, 3, 3), math.log(9))], dim=1).double()
    divergence = 0.1 * math.log(0.1 / 0.5) + 0.9 * math.log(0.9 / 0.5)
    softened = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert consistency(student, teacher).item() == pytest.approx(divergence / 2)
    assert consistency(student, teacher, temperature=2).item() == pytest.approx(4 * softened / 2)
    assert consistency(teacher, student).item() != pytest.approx(divergence / 2), "the teacher is the second"
    assert consistency(teacher, teacher).item() == 0


def test_consistency_teaches_only_the_student() -> None:
    student = torch.randn(1, 2, 3, 3, requires_grad=True)
    teacher = torch.randn(1, 2, 3, 3, requires_grad=True)
    consistency(student, teacher).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0
    assert teacher.grad is None


def test_edge_head_adds_its_focal_loss(half: Tensor) -> None:
    lines = Targets(half).contours(4).long()
    logits, edges = certainty(half, 0.75), certainty(lines, 0.5)
    mask_loss, edge_loss = -math.log(0.75), 0.25 * LN2
    assert EdgeHeadLoss()((logits, edges), Targets(half)).item() == pytest.approx(mask_loss + 0.1 * edge_loss)
    assert EdgeHeadLoss()((logits, edges, edges), Targets(half)).item() == pytest.approx(mask_loss + 0.2 * edge_loss)
    assert EdgeHeadLoss()((logits,), Targets(half)).item() == pytest.approx(mask_loss)
    wrong = EdgeHeadLoss()((logits, certainty(1 - lines, 0.99)), Targets(half)).item()
    right = EdgeHeadLoss()((logits, certainty(lines, 0.99)), Targets(half)).item()
    assert right < mask_loss + 1e-5 < wrong - 0.1


def test_smaller_edge_head_keeps_thin_lines(half: Tensor) -> None:
    loss = EdgeHeadLoss(edge_width=1)
    lines = Targets(half).contours(1)
    pooled = nn.functional.max_pool2d(lines, 4).long()
    assert pooled.sum() > lines.sum() / 8, "every line pixel is in some pooled pixel"
    right = loss((certainty(half, 0.75), certainty(pooled, 0.999)), Targets(half)).item()
    assert right == pytest.approx(-math.log(0.75), abs=1e-6)


def test_elb_weighs_by_nearness() -> None:
    mask = torch.tensor([[[0, 0, 0, 1, 1]]])
    probability = torch.tensor([[[0.5, 0.5, 0.9, 0.9, 0.5]]], dtype=torch.float64)
    found = AdaptiveWeightLoss()((certainty(mask, probability),), Targets(mask)).item()
    assert found == pytest.approx((LN2 * (1 + 1.5 + 1.5) - math.log(0.9) * (2 + 2)) / 5)


def test_hard_examples_are_the_unsure_ones_and_never_too_few() -> None:
    each = -torch.tensor([[[0.99, 0.95, 0.8, 0.5]]], dtype=torch.float64).log()
    assert hard_examples(each, 0.9, 0.25).item() == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2)
    assert hard_examples(each, 0.6, 0.25).item() == pytest.approx(LN2)
    kept = -(math.log(0.95) + math.log(0.8) + math.log(0.5)) / 3
    assert hard_examples(each, 0.9, 0.75).item() == pytest.approx(kept)
    assert hard_examples(each, 0.01, 0.0).item() == pytest.approx(LN2), "one pixel at least"


def test_boundary_branch_balances_its_classes() -> None:
    boundary = torch.zeros(1, 4, 5)
    boundary[0, 0] = 1
    logits = torch.zeros(1, 4, 5)
    # A quarter of boundary weighs 3/4 a pixel, the rest 1/4: 2 x 1/4 x 3/4 a pixel on average.
    assert balanced_boundary_loss(logits, boundary).item() == pytest.approx(LN2 * 2 * 0.25 * 0.75)
    assert balanced_boundary_loss(boundary * 40 - 20, boundary).item() < 1e-6
    assert balanced_boundary_loss(20 - boundary * 40, boundary).item() > 1


def test_sappm_weighs_its_branches(half: Tensor) -> None:
    targets = Targets(half)
    sure, unsure = certainty(half, 0.95).float(), certainty(half, 0.5).float()
    neither = torch.zeros(1, 1, 56, 56)
    share = 2 / 224
    boundary = 2.0 * LN2 * 2 * share * (1 - share)
    loss = DeepSupervisionLoss()
    assert loss((unsure, neither, sure), targets).item() == pytest.approx(LN2 - 0.4 * math.log(0.95) + boundary)
    assert loss((sure, neither, unsure), targets).item() == pytest.approx(-math.log(0.95) + 0.4 * LN2 + boundary)
    small = certainty(half[:, ::4, ::4], 0.95).float()
    lower = loss((unsure, neither, small), targets).item()
    assert lower == pytest.approx(LN2 - 0.4 * math.log(0.95) + boundary, abs=0.02)
    plain = dataclasses.replace(loss, auxiliary_weight=0, boundary_weight=0)
    assert plain((unsure, neither, sure), targets).item() == pytest.approx(LN2)


def test_two_views_add_the_clean_cross_entropy_and_the_agreement(half: Tensor) -> None:
    textured, clean = certainty(half, 0.5), certainty(half, 0.75)
    objective = LOSSES["portraitnet"]
    lines = Targets(half).contours(4).long()
    right = certainty(lines, 1 - 1e-9)
    divergence = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    found = objective((textured, right), Targets(half), (clean, right)).item()
    assert found == pytest.approx(LN2 - math.log(0.75) + 2 * divergence / 2)
    assert LOSSES["rcrnet"].views == TwoViews(weight=1.0)


@pytest.mark.parametrize("network", sorted(LOSSES))
def test_the_clean_view_is_given_exactly_where_it_is_used(network: str, half: Tensor) -> None:
    objective, outputs = LOSSES[network], (certainty(half, 0.5),)
    clean = outputs if objective.views is None else None
    with pytest.raises(ValueError, match="clean view"):
        objective(outputs, Targets(half), clean)


def test_weights_are_those_of_the_papers() -> None:
    assert {name: type(objective.loss) for name, objective in LOSSES.items()} == {
        "sinet": BandCrossEntropy,
        "portraitnet": EdgeHeadLoss,
        "mobilenetv3_sappm": DeepSupervisionLoss,
        "elb": AdaptiveWeightLoss,
        "rcrnet": EdgeHeadLoss,
    }
    assert LOSSES["rcrnet"].loss == EdgeHeadLoss(edge_weight=0.3)
    assert DeepSupervisionLoss().kept_share == pytest.approx(1 / 12)


@pytest.mark.parametrize("network", sorted(MODELS))
def test_every_parameter_of_every_network_learns(network: str) -> None:
    module, name = MODELS[network].split(":")
    torch.manual_seed(0)
    built = getattr(importlib.import_module(module), name)().train()
    mask = torch.zeros(2, 64, 64, dtype=torch.long)
    mask[:, 20:, 16:40] = 1
    image = torch.randn(2, 3, 64, 64)

    def outputs() -> tuple[Tensor, ...]:
        found = built(image)
        return found if isinstance(found, tuple) else (found,)

    objective = LOSSES[network]
    objective(outputs(), Targets(mask), outputs() if objective.views else None).backward()
    idle = [key for key, value in built.named_parameters() if value.grad is None or not value.grad.isfinite().all()]
    assert not idle
