from __future__ import annotations

import warnings

import numpy as np
import pytest
from mask_cases import pairs
from sklearn.metrics import accuracy_score, balanced_accuracy_score

from deploykit.metrics.accuracy import mean_class_accuracy, pixel_accuracy
from deploykit.metrics.confusion import Confusion, confusion


def test_a_case_counted_by_hand():
    counts = Confusion(true_positive=2, false_positive=2, false_negative=3, true_negative=5)
    assert pixel_accuracy(counts) == 7 / 12
    assert mean_class_accuracy(counts) == (2 / 5 + 5 / 7) / 2
    exchanged = Confusion(true_positive=2, false_positive=3, false_negative=2, true_negative=5)
    assert mean_class_accuracy(exchanged) == (2 / 4 + 5 / 8) / 2, "the shares are of the truth, not of what was found"


@pytest.mark.parametrize(
    ("counts", "pixels", "classes"),
    [
        (Confusion(0, 0, 0, 9), 1.0, 1.0),
        (Confusion(9, 0, 0, 0), 1.0, 1.0),
        (Confusion(0, 9, 0, 0), 0.0, 0.0),
        (Confusion(0, 0, 9, 0), 0.0, 0.0),
        (Confusion(0, 3, 0, 6), 6 / 9, 6 / 9),  # no portrait: its share is left out
        (Confusion(0, 0, 1, 99), 0.99, 0.5),  # a small portrait missed hides in the one, not in the other
    ],
)
def test_the_extremes(counts, pixels, classes):
    assert pixel_accuracy(counts) == pixels
    assert mean_class_accuracy(counts) == classes


@pytest.mark.parametrize("case", range(len(pairs())))
def test_scikit_learn_agrees(case):
    found, truth = pairs()[case]
    counts = confusion(found, truth)
    assert pixel_accuracy(counts) == pytest.approx(accuracy_score(truth.ravel(), found.ravel()), abs=1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns where a class was found that is not there
        expected = balanced_accuracy_score(truth.ravel(), found.ravel())
    assert mean_class_accuracy(counts) == pytest.approx(expected, abs=1e-12)


def test_a_class_that_is_not_there_is_left_out_as_scikit_learn_does():
    truth, found = np.zeros((4, 5), bool), np.zeros((4, 5), bool)
    found[0, :3] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = balanced_accuracy_score(truth.ravel(), found.ravel())
    assert mean_class_accuracy(confusion(found, truth)) == pytest.approx(expected)
