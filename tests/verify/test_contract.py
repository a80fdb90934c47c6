"""What follows from scores for files that give probabilities or masks, and what counts as wrong in them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deploykit.errors import UsageError
from deploykit.records import Tolerance
from deploykit.verify.contract import (
    classes_in,
    compare_output,
    contracted,
    one_hot,
    probability_in,
    require_scores,
    tolerance_of,
)
from deploykit.vocab import OutputKind

LOGITS, PROBABILITY, MASK = OutputKind
BOUND = Tolerance("of this test", max_abs_error=0.1, wrong_pixels=0)
RNG = np.random.default_rng(0)


def output(classes=2):
    return SimpleNamespace(name="scores", classes=tuple(f"class {i}" for i in range(classes if classes > 1 else 0)))


def scores(classes=2, size=16):
    return RNG.normal(0, 3, (1, classes, size, size))


def of_torch(values, kind):
    """The same, as PyTorch says it."""
    given = torch.from_numpy(values)
    if kind is PROBABILITY:
        if given.shape[1] == 1:
            return torch.sigmoid(given).numpy()
        found = torch.softmax(given, 1)
        return (found[:, 1:] if given.shape[1] == 2 else found).numpy()
    best = (given > 0).double() if given.shape[1] == 1 else given.argmax(1, keepdim=True).double()
    return best.numpy()


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("kind", [PROBABILITY, MASK])
def test_what_a_file_gives_is_what_pytorch_gives(classes, kind):
    values = scores(classes)
    expected = of_torch(values, kind)
    assert np.abs(contracted(values, kind) - expected).max() < 1e-15
    assert contracted(values, LOGITS) is values
    best = classes_in(expected, kind) if classes != 1 or kind is MASK else classes_in(expected, PROBABILITY)
    wanted = values[:, 0] > 0 if classes == 1 else values.argmax(1)
    assert np.array_equal(best, wanted)
    found = compare_output(output(classes), [expected.astype(np.float32)], [values], BOUND, kind)
    assert found.passed, found.failures
    assert found.max_abs_error < 1e-7
    assert found.mask_agreement == (None if classes == 1 and kind is PROBABILITY else 1.0)


def test_of_equal_scores_the_first_class_wins():
    equal = np.ones((1, 2, 1, 1))
    assert contracted(equal, MASK) == 0
    assert classes_in(contracted(equal, PROBABILITY), PROBABILITY) == 0


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_no_error_of_scores_within_the_bound_breaks_that_of_probabilities(classes):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        values = rng.normal(0, 1, (1, classes, 8, 8))
        moved = values + rng.choice([-0.1, 0.1], values.shape)
        found = compare_output(output(classes), [contracted(moved, PROBABILITY)], [values], BOUND, PROBABILITY)
        assert found.passed, found.failures
        assert found.tolerance.max_abs_error == 0.05
    # The bound is near: half as much again breaks it, where the margin is small and both scores move apart.
    level = np.zeros((1, max(classes, 2), 4, 4))
    apart = level.copy()
    apart[:, 1] += 0.15
    apart[:, 0] -= 0.15
    assert not compare_output(
        output(2), [contracted(apart[:, :2], PROBABILITY)], [level[:, :2]], BOUND, PROBABILITY
    ).passed


def test_a_pixel_is_wrong_only_beyond_the_margin():
    values = np.zeros((1, 2, 1, 4))
    values[0, 1, 0] = [0.15, 0.25, -0.15, -0.25]
    right = contracted(values, MASK)
    near, far = right.copy(), right.copy()
    near[..., [0, 2]] = 1 - near[..., [0, 2]]
    far[..., [1]] = 0
    found = compare_output(output(), [near], [values], BOUND, MASK)
    assert found.passed
    assert found.mask_agreement == 0.5
    twin = compare_output(output(), [far], [values], BOUND, MASK)
    assert not twin.passed
    assert twin.wrong_pixels == 1
    assert twin.worst_index == (0, 0, 0, 1)
    # For probabilities the margin is that of the scores as well.
    soft = contracted(values, PROBABILITY)
    soft[..., 1] = 0.49
    assert compare_output(output(), [soft], [values], BOUND, PROBABILITY).wrong_pixels == 1


@pytest.mark.parametrize("wrong", [0.5, 2.0, -1.0, np.nan])
def test_a_value_that_is_no_class_fails_wherever_it_is(wrong):
    values = np.zeros((1, 2, 2, 2))
    mask = contracted(values, MASK)
    mask[0, 0, 0, 0] = wrong
    found = compare_output(output(), [mask], [values], BOUND, MASK)
    assert "1 values are none of the class numbers 0 to 1" in found.failures
    assert np.isnan(one_hot(mask, 2)[0, :, 0, 0]).all()


def test_a_probability_that_is_not_finite_fails():
    values = scores()
    soft = contracted(values, PROBABILITY)
    soft[0, 0, 3, 3] = np.nan
    assert not compare_output(output(), [soft], [values], BOUND, PROBABILITY).passed


@pytest.mark.parametrize("kind", [PROBABILITY, MASK])
def test_another_shape_is_the_failure(kind):
    values = scores()
    found = compare_output(output(), [values], [values], BOUND, kind)
    assert found.failures == ("shape [1, 2, 16, 16] instead of [1, 1, 16, 16]",)


def test_the_tolerance_of_a_mask_bounds_classes_alone():
    assert tolerance_of(LOGITS, BOUND) is BOUND
    loose = Tolerance("of this test", relative_l2=0.1)
    assert tolerance_of(MASK, loose) == Tolerance(f"{loose.reason}; of a mask the classes are compared", wrong_pixels=0)
    shared = tolerance_of(MASK, Tolerance("of this test", relative_l2=0.1, mask_agreement=0.9))
    assert (shared.wrong_pixels, shared.mask_agreement, shared.relative_l2) == (None, 0.9, None)


@pytest.mark.parametrize("index", [0, 1])
def test_the_probability_of_a_class(index):
    values = scores()
    wanted = torch.softmax(torch.from_numpy(values), 1)[:, index : index + 1].numpy()
    assert np.abs(probability_in(values, LOGITS, index) - wanted).max() < 1e-15
    assert np.abs(probability_in(contracted(values, PROBABILITY), PROBABILITY, index) - wanted).max() < 1e-15
    with pytest.raises(ValueError, match="holds no probability"):
        probability_in(contracted(values, MASK), MASK, index)


@pytest.mark.parametrize("given", [torch.softmax(torch.from_numpy(scores(3)), 1).numpy(), np.full((1, 1, 2, 2), 0.3)])
def test_a_network_that_gives_probabilities_is_refused(given):
    require_scores(output(), [given], LOGITS)
    require_scores(output(), [scores(given.shape[1])], MASK)
    with pytest.raises(UsageError, match="gives probabilities by itself") as caught:
        require_scores(output(), [given], PROBABILITY)
    assert "--output-kind logits" in caught.value.next_step
