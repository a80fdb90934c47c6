"""Fake masks of the frame before."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from deploykit.training.priors import MOTION, Motion, fake_prior, motion_matrix
from deploykit.training.score import iou

STILL = Motion(empty_probability=0, rotation=0, resizing=0, shear=0, translation=0, softness=0)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    found = np.zeros((120, 160), np.uint8)
    cv2.ellipse(found, (80, 60), (30, 45), 0, 0, 360, 1, -1)
    return found


def test_half_of_the_priors_are_empty(mask: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    empty = [not fake_prior(mask, rng).any() for _ in range(1000)]
    assert np.mean(empty) == pytest.approx(0.5, abs=0.06)
    always = dataclasses.replace(MOTION, empty_probability=0)
    assert all(fake_prior(mask, rng, always).any() for _ in range(50))


def test_prior_is_a_probability_of_the_size_of_the_mask(mask: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        prior = fake_prior(mask, rng)
        assert prior.dtype == np.float32
        assert prior.shape == mask.shape
        assert prior.min() >= 0
        assert prior.max() <= 1


def test_a_generator_decides_the_prior(mask: np.ndarray) -> None:
    always = dataclasses.replace(MOTION, empty_probability=0)
    first, again, other = (fake_prior(mask, np.random.default_rng(seed), always) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_without_motion_the_prior_is_the_mask(mask: np.ndarray) -> None:
    assert np.array_equal(fake_prior(mask, np.random.default_rng(0), STILL), mask)


def test_prior_is_near_the_mask_and_not_the_mask(mask: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    always = dataclasses.replace(MOTION, empty_probability=0)
    found = [iou(fake_prior(mask, rng, always) > 0.5, mask > 0) for _ in range(200)]
    assert 0.6 < np.mean(found) < 0.95
    assert min(found) > 0.3


def test_motion_fills_its_ranges() -> None:
    rng = np.random.default_rng(3)
    height, width = 101, 201
    middle = np.array([100, 50, 1])
    shifts, angles, factors, shears = [], [], [], []
    for _ in range(2000):
        matrix = motion_matrix(height, width, rng)
        linear = matrix[:, :2]
        shifts.append((matrix @ middle - middle[:2]) / (width, height))
        factor = math.sqrt(np.linalg.det(linear))
        angle = math.atan2(-linear[1, 0], linear[0, 0])
        turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        angles.append(math.degrees(angle))
        factors.append(factor)
        shears.append((turned.T @ linear)[0, 1] / factor)
    for found, middle_value, reach in (
        (np.array(shifts)[:, 0], 0, 0.1),
        (np.array(shifts)[:, 1], 0, 0.1),
        (angles, 0, 10),
        (factors, 1, 0.1),
        (shears, 0, 0.05),
    ):
        away = np.asarray(found) - middle_value
        assert -reach - 1e-9 <= away.min() < -0.98 * reach
        assert 0.98 * reach < away.max() <= reach + 1e-9


def test_soft_edges_are_as_wide_as_they_say(mask: np.ndarray) -> None:
    rng = np.random.default_rng(4)
    soft = dataclasses.replace(STILL, softness=0.03)
    between = []
    for _ in range(100):
        prior = fake_prior(mask, rng, soft)
        between.append(np.mean((prior > 0.01) & (prior < 0.99)))
        assert prior[60, 80] == pytest.approx(1, abs=1e-5), "the inside stays sure"
    hard = fake_prior(mask, rng, STILL)
    assert not np.any((hard > 0.01) & (hard < 0.99))
    assert max(between) > 0.1


def test_what_moves_in_continues_the_mask() -> None:
    mask = np.zeros((100, 100), np.uint8)
    mask[50:, 30:70] = 1
    rng = np.random.default_rng(5)
    shifted = dataclasses.replace(STILL, translation=0.1)
    for _ in range(50):
        prior = fake_prior(mask, rng, shifted)
        assert prior[-1].max() == 1, "a portrait that leaves the image below still does"
        assert prior[0].max() == 0
