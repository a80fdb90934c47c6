from __future__ import annotations

import numpy as np
import pytest
from mask_cases import blob
from scipy import ndimage

from deploykit.images.synthetic.motion import synthesize_clip
from deploykit.metrics.flicker import flicker


def row(text: str) -> np.ndarray:
    return np.array([[character == "#" for character in text]])


def still(shape: tuple[int, int]) -> np.ndarray:
    rows, columns = np.indices(shape, dtype=float)
    return np.stack([columns, rows], axis=2)


def moved(shape: tuple[int, int], columns: float, rows: float = 0) -> np.ndarray:
    return still(shape) + np.array([columns, rows])


def test_cases_counted_by_hand():
    here = still((1, 4))
    truth = row(".##.")
    # An error that stays is no flicker, one that comes or goes is, and one that turns round counts twice.
    assert flicker([row("###."), row("###.")], [truth, truth], [here]) == 0.0
    assert flicker([truth, row("###.")], [truth, truth], [here]) == 1 / 4
    assert flicker([row("###."), truth], [truth, truth], [here]) == 1 / 4
    assert flicker([row("####"), row("#..#")], [row("...."), row("####")], [here]) == (1 + 2 + 2 + 1) / 4
    # Over three frames it is the mean over both changes.
    assert flicker([truth, row("###."), row("###.")], [truth] * 3, [here, here]) == 1 / 8


def test_it_follows_the_motion():
    # The scene moves one column to the right: what is at column x was at x - 1. Column 0 was not visible.
    motion = moved((1, 4), -1)
    truth = [row("#..."), row(".#..")]
    assert flicker([row("##.."), row(".##.")], truth, [motion]) == 0.0, "the error moved with the scene"
    assert flicker([row("##.."), row("##..")], truth, [motion]) == 1 / 3, "the error stayed in the picture"
    assert flicker([row("##.."), row(".##.")], truth, [still((1, 4))]) > 0, "the wrong motion sees a change"
    hidden = motion.copy()
    hidden[0, 2] = np.nan
    assert flicker([row("##.."), row("##..")], truth, [hidden]) == 0.0, "where the change is, nothing was visible"


def test_a_perfect_mask_does_not_flicker_whatever_the_motion():
    truth = [blob(1), blob(2), blob(3)]
    rng = np.random.default_rng(0)
    motion = [moved((48, 40), *rng.uniform(-9, 9, 2)) for _ in range(2)]
    assert flicker(truth, truth, motion) == 0.0


@pytest.mark.parametrize("seed", range(3))
def test_scipy_agrees(seed):
    rng = np.random.default_rng(seed)
    found, truth = [blob(seed + k) for k in range(3)], [blob(seed + 50 + k) for k in range(3)]
    motion = [still((48, 40)) * rng.uniform(0.8, 1.2) + rng.uniform(-6, 6, 2) for _ in range(2)]
    change = []
    for index, field in enumerate(motion):
        before = found[index].astype(float) - truth[index]
        warped = ndimage.map_coordinates(before, field[:, :, ::-1].transpose(2, 0, 1), order=0, cval=np.nan)
        nearest = np.rint(field)
        inside = ((nearest >= 0) & (nearest < (40, 48))).all(axis=2)
        # SciPy takes a place less than half a pixel outside for outside.
        warped = np.where(inside & np.isnan(warped), before[_rows(nearest), _columns(nearest)], warped)
        change.append(np.abs(found[index + 1].astype(float) - truth[index + 1] - warped)[inside])
    expected = np.concatenate(change).mean()
    assert flicker(found, truth, motion) == pytest.approx(expected, abs=1e-12)
    assert abs(flicker(found, truth, motion[::-1]) - expected) > 0.001


def _rows(nearest: np.ndarray) -> np.ndarray:
    return np.clip(nearest[:, :, 1], 0, 47).astype(int)


def _columns(nearest: np.ndarray) -> np.ndarray:
    return np.clip(nearest[:, :, 0], 0, 39).astype(int)


def test_on_a_clip_errors_that_stick_to_the_scene_do_not_flicker_and_blinking_ones_do():
    clip = synthesize_clip(3, 64, 6)
    truth = [mask > 0 for mask in clip.masks]
    motion = [clip.motion(index) for index in range(1, 6)]
    # Wrong in a fixed pattern of the scene: every fifth pixel of the large picture.
    rows, columns = np.indices((64, 64))
    stuck = [t ^ ((rows + y + columns + x) % 5 == 0) for t, (x, y) in zip(truth, clip.corners, strict=True)]
    blinking = [t ^ (((rows + columns) % 5 == 0) & (index % 2 == 0)) for index, t in enumerate(truth)]
    assert any(np.any(clip.corners[1:] != clip.corners[:-1], axis=1))
    assert flicker(stuck, truth, motion) == 0.0
    assert flicker(stuck, truth, [still((64, 64))] * 5) > 0.1
    assert flicker(blinking, truth, motion) == pytest.approx(0.2, abs=0.01)


def test_what_was_never_visible_has_no_flicker():
    truth = row(".##.")
    assert flicker([truth, truth], [truth, truth], [moved((1, 4), 100)]) is None
    assert flicker([truth, truth], [truth, truth], [np.full((1, 4, 2), np.nan)]) is None


@pytest.mark.parametrize(
    ("found", "truth", "motion"),
    [
        (1, 1, 0),
        (3, 2, 2),
        (3, 3, 1),
    ],
)
def test_numbers_that_do_not_fit_are_refused(found, truth, motion):
    mask = row(".##.")
    with pytest.raises(ValueError, match="do not fit"):
        flicker([mask] * found, [mask] * truth, [still((1, 4))] * motion)


def test_motion_of_another_size_is_refused():
    mask = row(".##.")
    with pytest.raises(ValueError, match="motion"):
        flicker([mask] * 2, [mask] * 2, [still((2, 4))])
