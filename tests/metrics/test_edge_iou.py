from __future__ import annotations

import math

import numpy as np
import pytest
from mask_cases import blob, pairs
from scipy import ndimage

from deploykit.metrics.boundary_f1 import boundary_f1
from deploykit.metrics.confusion import confusion
from deploykit.metrics.edge_iou import edge_iou, edge_weights
from deploykit.metrics.overlap import foreground_iou

SIGMAS = (3, 5, 10, 20, 40, 80)  # PortraitNet, Table 2


def row(text: str) -> np.ndarray:
    return np.array([[character == "#" for character in text]])


def scipy_weights(truth: np.ndarray, sigma: float) -> np.ndarray:
    cross = ndimage.generate_binary_structure(2, 1)
    boundary = truth & ~ndimage.binary_erosion(truth, cross, border_value=1)
    distance = ndimage.distance_transform_edt(~boundary)
    return np.where(truth, np.exp(-(distance**2) / (2 * sigma**2)), 0)


def test_weights_counted_by_hand():
    near, far = math.exp(-1 / 2), math.exp(-4 / 2)
    assert edge_weights(row("..#####.."), 1.0)[0] == pytest.approx([0, 0, 1, near, far, near, 1, 0, 0], abs=1e-7)
    # The picture's frame is no boundary of the portrait.
    assert edge_weights(row("#####.."), 1.0)[0, :5] == pytest.approx(
        [math.exp(-(d**2) / 2) for d in (4, 3, 2, 1, 0)], abs=1e-7
    )


def test_a_case_counted_by_hand():
    near, far = math.exp(-1 / 2), math.exp(-4 / 2)
    found, truth = row("...#####."), row("..#####..")
    assert edge_iou(found, truth, 1.0) == pytest.approx((1 + 2 * near + far) / (2 + 2 * near + far), abs=1e-7)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_scipy_agrees(sigma):
    for found, truth in pairs():
        weights = scipy_weights(truth, sigma)
        expected = (weights * (found & truth)).sum() / (weights * (found | truth)).sum()
        assert edge_iou(found, truth, sigma) == pytest.approx(expected, abs=1e-6)


def test_scipy_disagrees_with_distances_that_are_one_pixel_off():
    found, truth = pairs()[6]
    distance = ndimage.distance_transform_edt(truth)  # to the first pixel outside, 1 on the boundary
    weights = np.where(truth, np.exp(-(distance**2) / (2 * 3**2)), 0)
    expected = (weights * (found & truth)).sum() / (weights * (found | truth)).sum()
    assert abs(edge_iou(found, truth, 3) - expected) > 1e-4


def test_all_foreground_scores_1_so_nothing_may_be_gated_on_it():
    truth = blob(5)
    everything = np.ones_like(truth)
    for sigma in SIGMAS:
        assert edge_iou(everything, truth, sigma) == 1.0
    assert foreground_iou(confusion(everything, truth)) == truth.mean() < 0.75
    assert boundary_f1(everything, truth) < 0.85


def test_it_does_not_see_what_is_found_outside_and_sees_what_is_missing_inside():
    truth = blob(5)
    outside, inside = truth.copy(), truth.copy()
    outside[~truth & (np.arange(truth.size).reshape(truth.shape) % 3 == 0)] = True
    inside[truth & (np.arange(truth.size).reshape(truth.shape) % 3 == 0)] = False
    assert edge_iou(outside, truth) == 1.0
    assert edge_iou(inside, truth) < 0.75


def test_a_smaller_sigma_sees_the_boundary_more_sharply():
    # As in PortraitNet, Table 2: the score of the same masks rises with sigma.
    truth = np.zeros((60, 60), bool)
    truth[15:45, 15:45] = True
    found = np.zeros_like(truth)
    found[17:43, 17:43] = True
    scores = [edge_iou(found, truth, sigma) for sigma in SIGMAS]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1] - 0.1
    assert scores[-1] == pytest.approx(foreground_iou(confusion(found, truth)), abs=0.01), "flat weights are plain IoU"


def test_the_extremes():
    truth = blob(5)
    empty, full = np.zeros_like(truth), np.ones_like(truth)
    assert edge_iou(truth, truth) == 1.0
    assert edge_iou(empty, truth) == 0.0
    assert edge_iou(~truth, truth) == 0.0
    assert edge_iou(truth, empty) is None
    assert edge_iou(empty, empty) is None
    assert edge_iou(truth, full) is None, "a portrait that fills the picture has no boundary"
    one = empty.copy()
    one[3, 4] = True
    assert edge_iou(one, one) == 1.0
    assert edge_iou(full, one) == 1.0
    assert edge_iou(empty, one) == 0.0


@pytest.mark.parametrize("sigma", [0, -1, math.nan])
def test_a_sigma_that_is_not_positive_is_refused(sigma):
    with pytest.raises(ValueError, match="sigma"):
        edge_iou(blob(1), blob(2), sigma)


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="sizes"):
        edge_iou(blob(1), blob(1, (40, 48)))
