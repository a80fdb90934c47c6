from __future__ import annotations

import numpy as np
import pytest

from deploykit.evaluation.records import ClipScore
from deploykit.evaluation.score import score_image
from deploykit.evaluation.summary import METRICS, summarise
from deploykit.metrics.interval import bootstrap_interval


def image(seed: int, noise: float):
    """A score whose error grows with ``noise``; the truth depends on the seed alone."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((40, 40), bool)
    truth[rng.integers(5, 15) :, 8:32] = True
    return score_image(str(seed), truth ^ (rng.random((40, 40)) < noise), truth, 3.0)


def images(noise: float, count: int = 30):
    return [image(seed, noise * (1 + seed % 5)) for seed in range(count)]


def test_every_metric_has_a_mean_and_its_own_interval():
    scores = images(0.02)
    clips = [ClipScore(seed, 16, 0.01 * seed, 0.9) for seed in range(4)]
    found = {one.metric: one for one in summarise(scores, clips)}
    assert list(found) == [metric.name for metric in METRICS]
    for name in ("foreground_iou", "edge_iou", "boundary_f1", "pixel_accuracy"):
        values = np.array([getattr(score, name) for score in scores])
        assert found[name].estimate.value == pytest.approx(values.mean())
        assert found[name].estimate.interval == bootstrap_interval([values])
        assert found[name].count == 30
    assert found["flicker"].estimate.value == pytest.approx(0.015)
    assert found["flicker"].count == 4
    assert found["clip_iou"].estimate.interval == pytest.approx((0.9, 0.9))


def test_without_clips_there_is_no_flicker():
    assert not [one for one in summarise(images(0.02), []) if one.metric in ("flicker", "clip_iou")]


def test_the_interval_of_a_difference_is_that_of_the_pairs():
    """A small loss on every image is certain, although it is far below the spread between images."""
    first, worse = images(0.02), images(0.022)
    (found,) = [one for one in summarise(worse, [], (first, [])) if one.metric == "foreground_iou"]
    low, high = found.difference.interval
    assert low < found.difference.value < high < 0
    own_low, own_high = found.estimate.interval
    assert high - low < 0.3 * (own_high - own_low)
    # Against images in another order the same difference would be lost in the spread.
    shuffled = first[1:] + first[:1]
    (apart,) = [one for one in summarise(worse, [], (shuffled, [])) if one.metric == "foreground_iou"]
    assert apart.difference.value == pytest.approx(found.difference.value)
    assert apart.difference.interval[0] < 0 < apart.difference.interval[1]


def test_the_difference_of_the_pooled_figure_is_pooled_on_both_sides():
    first, worse = images(0.02), images(0.03)
    found = {one.metric: one for one in summarise(worse, [], (first, []))}
    alone = {one.metric: one.estimate.value for one in summarise(first, [])}
    for name, one in found.items():
        assert one.difference.value == pytest.approx(one.estimate.value - alone[name]), name


def test_images_without_a_value_on_either_side_are_left_out_of_the_difference():
    empty = np.zeros((40, 40), bool)
    first, other = images(0.02, 6), images(0.03, 6)
    first[0] = other[0] = score_image("empty", empty, empty, 3.0)
    (found,) = [one for one in summarise(other, [], (first, [])) if one.metric == "edge_iou"]
    assert (found.count, found.undefined) == (5, 1)
    pairs = [a.edge_iou - b.edge_iou for a, b in zip(other[1:], first[1:], strict=True)]
    assert found.difference.value == pytest.approx(np.mean(pairs))
