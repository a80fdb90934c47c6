from __future__ import annotations

import numpy as np
import pytest
from mask_cases import blob, pairs
from sklearn.metrics import confusion_matrix, jaccard_score

from deploykit.metrics.confusion import Confusion, confusion
from deploykit.metrics.overlap import foreground_iou, pooled_two_class_miou, two_class_miou


def mask(*rows: str) -> np.ndarray:
    return np.array([[character == "#" for character in row] for row in rows])


FOUND = mask("##..", "##..", "....")
TRUTH = mask(".##.", ".##.", ".#..")


def test_a_case_counted_by_hand():
    counts = confusion(FOUND, TRUTH)
    assert counts == Confusion(true_positive=2, false_positive=2, false_negative=3, true_negative=5)
    assert counts.pixels == 12
    assert foreground_iou(counts) == 2 / 7
    assert two_class_miou(counts) == (2 / 7 + 5 / 10) / 2


@pytest.mark.parametrize(
    ("found", "truth", "foreground", "two_class"),
    [
        ("....", "....", 1.0, 1.0),  # nothing there and nothing found
        ("####", "####", 1.0, 1.0),
        ("####", "....", 0.0, 0.0),  # all wrong
        ("....", "####", 0.0, 0.0),
        ("#...", "....", 0.0, 3 / 8),  # one pixel too many
        ("#...", "#...", 1.0, 1.0),
        ("##..", "..##", 0.0, 0.0),
        ("##..", "#...", 1 / 2, (1 / 2 + 2 / 3) / 2),
    ],
)
def test_the_extremes(found, truth, foreground, two_class):
    counts = confusion(mask(found), mask(truth))
    assert foreground_iou(counts) == foreground
    assert two_class_miou(counts) == pytest.approx(two_class, abs=1e-15)


@pytest.mark.parametrize("case", range(len(pairs())))
def test_scikit_learn_agrees(case):
    found, truth = pairs()[case]
    counts = confusion(found, truth)
    expected = confusion_matrix(truth.ravel(), found.ravel(), labels=[False, True])
    assert [[counts.true_negative, counts.false_positive], [counts.false_negative, counts.true_positive]] == (
        expected.tolist()
    )
    each = jaccard_score(truth.ravel(), found.ravel(), labels=[False, True], average=None, zero_division=1.0)
    assert foreground_iou(counts) == pytest.approx(each[1], abs=1e-12)
    assert two_class_miou(counts) == pytest.approx(each.mean(), abs=1e-12)


def test_found_and_truth_are_not_exchanged():
    counts, exchanged = confusion(FOUND, TRUTH), confusion(TRUTH, FOUND)
    assert counts != exchanged
    assert foreground_iou(counts) == foreground_iou(exchanged), "IoU itself is symmetric"


def test_pooling_counts_large_images_for_more():
    large, small = confusion(np.ones((40, 40), bool), np.ones((40, 40), bool)), confusion(FOUND, TRUTH)
    columns = [
        np.array([getattr(large, name), getattr(small, name)])
        for name in ("true_positive", "false_positive", "false_negative", "true_negative")
    ]
    assert pooled_two_class_miou(*columns) == pytest.approx((1602 / 1607 + 5 / 10) / 2, abs=1e-15)
    assert pooled_two_class_miou(*columns) != pytest.approx(
        (two_class_miou(large) + two_class_miou(small)) / 2, abs=0.05
    )


def test_pooling_one_image_is_its_own_value_and_works_along_an_axis():
    rows = [confusion(*pair) for pair in pairs()]
    names = ("true_positive", "false_positive", "false_negative", "true_negative")
    columns = [np.array([getattr(row, name) for row in rows])[:, None] for name in names]
    assert np.allclose(pooled_two_class_miou(*columns, axis=1), [two_class_miou(row) for row in rows], atol=1e-15)


@pytest.mark.parametrize(
    ("found", "truth"),
    [
        (blob(0), blob(0, (40, 48))),
        (blob(0).astype(np.uint8), blob(0)),
        (blob(0), blob(0).astype(float)),
        (np.zeros((0, 4), bool), np.zeros((0, 4), bool)),
        (np.zeros(4, bool), np.zeros(4, bool)),
    ],
)
def test_masks_that_do_not_fit_are_refused(found, truth):
    with pytest.raises(ValueError, match="mask"):
        confusion(found, truth)
