"""From what a file gives to the probability of the foreground, for every kind of output."""

from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import VerificationError
from deploykit.images.preprocess import fit_alpha_to_photo
from deploykit.preview.matte import foreground
from deploykit.recipe import Input, Output, Resize
from deploykit.verify.contract import contracted
from deploykit.vocab import OutputKind

SCORES = np.random.default_rng(2).normal(0, 3, (1, 3, 5, 6)).astype(np.float32)


def output(classes):
    return Output(name="scores", meaning="scores of this test", classes=tuple(f"class {n}" for n in range(classes)))


@pytest.mark.parametrize("classes", [2, 3])
def test_all_classes_but_the_first_are_the_foreground(classes):
    scores = SCORES[:, :classes]
    powers = np.exp(scores[0])
    expected = powers[1:].sum(axis=0) / powers.sum(axis=0)
    for kind in (OutputKind.LOGITS, OutputKind.PROBABILITY):
        found = foreground(np.asarray(contracted(scores, kind), np.float32), output(classes), kind)
        assert found.dtype == np.float32
        assert np.abs(found - expected).max() < 1e-6
    hard = foreground(np.asarray(contracted(scores, OutputKind.MASK), np.float32), output(classes), OutputKind.MASK)
    assert np.array_equal(hard, (scores[0].argmax(axis=0) > 0).astype(np.float32))


def test_scores_that_are_not_finite_give_no_mask():
    for bad in (np.nan, np.inf):
        scores = SCORES.copy()
        scores[0, 0, 2, 2] = bad
        with pytest.raises(VerificationError, match="not finite"):
            foreground(scores, output(3), OutputKind.LOGITS)


def test_the_borders_of_a_letterbox_are_cut_away():
    spec = Input(
        name="image",
        shape=(1, 3, 8, 8),
        color_order="rgb",
        mean=(0, 0, 0),
        scale=(1, 1, 1),
        resize=Resize(rule="letterbox"),
        source="this test",
    )
    alpha = np.zeros((8, 8), np.float32)
    alpha[2:6] = 1
    assert (fit_alpha_to_photo(alpha, spec, 20, 40) == 1).all()
    stretched = spec.model_copy(update={"resize": Resize()})
    assert (fit_alpha_to_photo(alpha, stretched, 20, 40) < 1).any()
    assert fit_alpha_to_photo(alpha, stretched, 20, 40).shape == (20, 40)
