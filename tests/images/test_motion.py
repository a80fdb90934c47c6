from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import ImageError
from deploykit.images.synthetic import synthesize
from deploykit.images.synthetic.motion import MOTION_VERSION, NOISE, synthesize_clip

# Corners of the last frame of the first seeds. They change with how the camera moves, and then the version has to.
LAST_CORNERS_OF_VERSION = {1: ((22, 24), (36, 54), (31, 43))}


@pytest.fixture(scope="module")
def clip():
    return synthesize_clip(5, 96, 12)


def test_shapes_and_types(clip):
    assert clip.frames.shape == (12, 96, 96, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.masks.shape == (12, 96, 96)
    assert set(np.unique(clip.masks)) == {0, 1}
    assert clip.corners.shape == (12, 2)


def test_the_same_arguments_give_the_same_pixels(clip):
    again = synthesize_clip(5, 96, 12)
    assert np.array_equal(again.frames, clip.frames)
    assert np.array_equal(again.masks, clip.masks)
    assert not np.array_equal(synthesize_clip(6, 96, 12).frames, clip.frames)


def test_the_version_names_the_motion():
    last = tuple(tuple(int(i) for i in synthesize_clip(seed, 224, 16).corners[-1]) for seed in range(3))
    assert last == LAST_CORNERS_OF_VERSION[MOTION_VERSION]


def test_frames_are_cut_out_of_one_portrait_where_the_corners_say(clip):
    portrait = synthesize(5, 120)
    for frame, mask, (x, y) in zip(clip.frames, clip.masks, clip.corners, strict=True):
        assert np.array_equal(mask, portrait.mask[y : y + 96, x : x + 96])
        cut = portrait.image[y : y + 96, x : x + 96].astype(float)
        gain = (frame * cut).sum() / (cut * cut).sum()
        assert 0.85 < gain < 1.15
        assert np.abs(frame - gain * cut)[(cut > 20) & (cut < 200)].mean() < NOISE


@pytest.mark.parametrize("frame", [1, 6, 11])
def test_the_motion_brings_a_frame_onto_the_one_before(clip, frame):
    motion = clip.motion(frame)
    columns, rows = motion[:, :, 0].astype(int), motion[:, :, 1].astype(int)
    inside = (columns >= 0) & (columns < 96) & (rows >= 0) & (rows < 96)
    before = clip.masks[frame - 1][rows[inside], columns[inside]]
    assert np.array_equal(before, clip.masks[frame][inside])
    assert inside.mean() > 0.5


def test_the_camera_moves_smoothly_and_the_wrong_direction_would_show():
    clip = synthesize_clip(5, 224, 16)
    steps = np.diff(clip.corners, axis=0)
    assert np.any(steps != 0)
    assert np.abs(steps).max() <= 0.1 * 224
    frame = 1 + int(np.abs(steps).sum(axis=1).argmax())
    x, y = steps[frame - 1]
    wrong = np.roll(clip.masks[frame - 1], (y, x), axis=(0, 1))
    right = np.roll(clip.masks[frame - 1], (-y, -x), axis=(0, 1))
    middle = (slice(40, 184), slice(40, 184))
    assert np.array_equal(right[middle], clip.masks[frame][middle])
    assert not np.array_equal(wrong[middle], clip.masks[frame][middle])


def test_a_frame_larger_than_the_largest_portrait_allows_is_stretched():
    clip = synthesize_clip(1, 900, 2)
    assert clip.frames.shape == (2, 900, 900, 3)
    assert clip.corners.max() <= 225


def test_one_frame_has_no_motion():
    clip = synthesize_clip(2, 64, 1)
    for frame in (0, 1):
        with pytest.raises(ValueError, match="no frame before"):
            clip.motion(frame)


@pytest.mark.parametrize("arguments", [(-1, 224, 4), (1, 63, 4), (1, 1025, 4), (1, 224, 0)])
def test_what_cannot_be_drawn_is_refused(arguments):
    with pytest.raises(ImageError, match="no synthetic clip"):
        synthesize_clip(*arguments)
