from __future__ import annotations

import numpy as np
from video_files import moving_frames

from deploykit.preview.choices import Preset
from deploykit.preview.motion import MotionTracker, enlarged, places


def test_a_translation_is_followed_back():
    first, second = moving_frames(2)
    for preset in Preset:
        tracker = MotionTracker(preset)
        assert tracker.follow(first) is None
        motion = tracker.follow(second)
        assert motion is not None
        inner = motion.flow[16:-16, 16:-16]
        # The second frame shows what lay 3 columns further right, so a point of it was 3 columns further right before.
        assert np.abs(np.median(inner.reshape(-1, 2), axis=0) - (3, 0)).max() < 0.3
        assert motion.trust.mean() > 0.8


def test_large_frames_are_followed_at_a_reduced_size():
    frames = moving_frames(2, 480, 960, step=12)
    tracker = MotionTracker()
    tracker.follow(frames[0])
    motion = tracker.follow(frames[1])
    assert motion is not None
    assert motion.flow.shape == (160, 320, 2)
    assert tracker.size == (160, 320)
    full = enlarged(motion.flow, 480, 960)
    assert abs(np.median(full[100:-100, 100:-100, 0]) - 12) < 1


def test_what_was_uncovered_is_not_trusted():
    rng = np.random.default_rng(3)
    before = moving_frames(1)[0]
    after = before.copy()
    after[30:60, 40:80] = 255 - after[30:60, 40:80]
    tracker = MotionTracker()
    tracker.follow(np.clip(before + rng.normal(0, 4, before.shape), 0, 255).astype(np.uint8))
    motion = tracker.follow(np.clip(after + rng.normal(0, 4, before.shape), 0, 255).astype(np.uint8))
    assert motion is not None
    assert motion.trust[36:54, 46:74].mean() < 0.2
    assert motion.trust[70:].mean() > 0.7


def test_a_cut_begins_anew_and_noise_does_not():
    frame = moving_frames(1)[0]
    noisy = np.clip(frame + np.random.default_rng(1).normal(0, 20, frame.shape), 0, 255).astype(np.uint8)
    tracker = MotionTracker()
    assert tracker.follow(frame) is None
    assert tracker.follow(noisy) is not None
    assert tracker.cuts == 0
    assert tracker.follow(np.random.default_rng(2).integers(0, 256, frame.shape, dtype=np.uint8)) is None
    assert tracker.cuts == 1


def test_another_size_begins_anew():
    tracker = MotionTracker()
    tracker.follow(moving_frames(1)[0])
    assert tracker.follow(moving_frames(1, 128, 96)[0]) is None
    assert tracker.cuts == 0


def test_tiny_frames_are_followed_too():
    tracker = MotionTracker()
    first, second = moving_frames(2, 8, 10, step=1)
    tracker.follow(first)
    motion = tracker.follow(second)
    assert motion is None or motion.flow.shape == (32, 32, 2)


def test_places_are_columns_and_rows():
    flow = np.zeros((4, 5, 2), np.float32)
    flow[:, :, 0] = 2
    found = places(flow)
    assert tuple(found[3, 1]) == (3, 3)
