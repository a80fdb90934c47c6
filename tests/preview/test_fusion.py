"""Temporal fusion, F = S·W + P·(1 - W): its parts, and what it does to masks that flicker."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from deploykit.images.synthetic.motion import synthesize_clip
from deploykit.metrics.boundary_f1 import boundary_f1
from deploykit.metrics.flicker import flicker
from deploykit.preview.fusion import FAST, STILL, Fuser, fuse, moved, weight
from deploykit.preview.motion import Motion, MotionTracker


def disc(column, row, radius=20.0, shape=(90, 120)):
    rows, columns = np.indices(shape)
    return (np.hypot(columns - column, rows - row) <= radius).astype(np.float32)


def everywhere(columns, rows, shape=(90, 120)):
    return np.broadcast_to(np.array([columns, rows], np.float32), (*shape, 2)).copy()


def overlap(found, expected):
    found, expected = found > 0.5, expected > 0.5
    return (found & expected).sum() / (found | expected).sum()


def test_a_mask_follows_the_motion():
    before, now = disc(50, 40), disc(57, 44)
    prediction = moved(before, everywhere(-7, -4), np.zeros_like(before))
    assert overlap(prediction, now) > 0.99
    # The other way round, and standing still, it is somewhere else.
    assert overlap(moved(before, everywhere(7, 4), np.zeros_like(before)), now) < 0.5
    assert overlap(moved(before, everywhere(0, 0), np.zeros_like(before)), now) < 0.8


def test_what_comes_from_outside_the_picture_is_the_frame_s_own():
    own = np.full((90, 120), 0.75, np.float32)
    prediction = moved(np.zeros_like(own), everywhere(-10, 0), own)
    assert (prediction[:, :10] == 0.75).all()
    assert (prediction[:, 11:] == 0).all()


def test_the_weight_grows_with_the_motion():
    assert np.allclose(weight(everywhere(0, 0)), STILL)
    full = FAST * 120
    assert np.allclose(weight(everywhere(0, full)), 1)
    assert np.allclose(weight(everywhere(-5 * full, 0)), 1)
    assert np.allclose(weight(everywhere(0.3 * full, 0.4 * full)), (1 + STILL) / 2)
    assert np.allclose(weight(everywhere(4, 0), still=0.1, fast=1.0), 0.1 + 0.9 * 4 / 120)


def test_the_limits_of_the_blend():
    rng = np.random.default_rng(0)
    own, prediction, share = (rng.random((6, 7)).astype(np.float32) for _ in range(3))
    assert np.allclose(fuse(own, prediction, np.ones_like(own)), own)
    assert np.allclose(fuse(own, prediction, np.zeros_like(own)), prediction)
    assert np.allclose(fuse(own, prediction, share), own * share + prediction * (1 - share))


def test_without_motion_or_trust_the_frame_s_own_mask_counts_alone():
    fuser, still = Fuser(), everywhere(0, 0)
    first, second = disc(50, 40), disc(20, 20)
    assert fuser.next(first, None) is first
    assert fuser.next(second, None) is second
    nothing = Motion(still, np.zeros((90, 120), np.float32))
    assert np.array_equal(fuser.next(first, nothing), first)
    trusted = Motion(still, np.ones((90, 120), np.float32))
    assert np.allclose(fuser.next(second, trusted), STILL * second + (1 - STILL) * first)
    smaller = disc(5, 5, 3, (30, 40))
    assert fuser.next(smaller, trusted) is smaller


def noisy_masks(truth, rng):
    """Return the soft mask of a network that errs in blobs at the edge, other ones in every frame."""
    blobs = cv2.GaussianBlur(rng.standard_normal(truth.shape).astype(np.float32), (0, 0), 4)
    inside = cv2.distanceTransform(truth, cv2.DIST_L2, 3) - cv2.distanceTransform(1 - truth, cv2.DIST_L2, 3)
    return (1 / (1 + np.exp(-(inside + 2 * blobs / blobs.std()) / 2))).astype(np.float32)


@pytest.fixture(scope="module")
def sequence():
    """Frames of a moving portrait with sensor noise, its true masks and motion, and masks that flicker."""
    clip = synthesize_clip(930_100, 160, 12)
    rng = np.random.default_rng(8)
    frames = np.clip(clip.frames + rng.normal(0, 10, clip.frames.shape), 0, 255).astype(np.uint8)
    return clip, frames, [noisy_masks(mask, rng) for mask in clip.masks]


def scored(clip, masks):
    found, truth = [mask > 0.5 for mask in masks], [mask > 0 for mask in clip.masks]
    motion = [clip.motion(index) for index in range(1, len(truth))]
    return flicker(found, truth, motion), np.mean([boundary_f1(*pair) for pair in zip(found, truth, strict=True)])


def test_fusion_lowers_the_flicker_and_keeps_the_boundary(sequence):
    clip, frames, masks = sequence
    tracker = MotionTracker()
    motions = [tracker.follow(frame) for frame in frames]
    fuser, blind, alone = Fuser(), Fuser(), Fuser(still=1.0)
    before, edge = scored(clip, masks)
    after, fused_edge = scored(clip, [fuser.next(*pair) for pair in zip(masks, motions, strict=True)])
    assert after < 0.8 * before
    assert fused_edge >= edge
    # Blended without following the motion the boundary is smeared, and with W = 1 nothing changes.
    stuck = [None if one is None else Motion(np.zeros_like(one.flow), np.ones_like(one.trust)) for one in motions]
    _, smeared = scored(clip, [blind.next(*pair) for pair in zip(masks, stuck, strict=True)])
    assert smeared < edge
    assert scored(clip, [alone.next(*pair) for pair in zip(masks, motions, strict=True)]) == (before, edge)
