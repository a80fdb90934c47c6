from __future__ import annotations

import numpy as np
import pytest

from deploykit.errors import ImageError, UsageError
from deploykit.preview.backgrounds import Chequered, Colour, background_of
from deploykit.preview.composite import beside_each_other, grey, hardened, over, soft_edge
from deploykit.report.picture import write_image


@pytest.fixture
def frame():
    return np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)


def test_the_limits_of_the_blend_are_exact(frame):
    ground = Colour((10, 200, 30)).behind(frame, np.zeros((60, 80), np.float32))
    assert np.array_equal(over(frame, ground, np.ones((60, 80), np.float32)), frame)
    assert np.array_equal(over(frame, ground, np.zeros((60, 80), np.float32)), ground)
    half = over(frame, ground, np.full((60, 80), 0.25, np.float32))
    assert np.abs(half - (0.25 * frame + 0.75 * ground)).max() <= 1


def test_a_colour_is_red_green_blue(frame):
    ground = background_of("#0A80ff").behind(frame, np.zeros((60, 80), np.float32))
    assert ground.shape == frame.shape
    assert (ground == (10, 128, 255)).all()


def test_blur_takes_the_surroundings_and_not_the_person():
    scene = np.zeros((120, 160, 3), np.uint8)
    scene[:, :, 1] = np.where(np.indices((120, 160))[1] % 2, 255, 155)
    alpha = np.zeros((120, 160), np.float32)
    alpha[30:, 60:100] = 1
    scene[alpha > 0] = (255, 0, 0)
    ground = background_of("blur").behind(scene, alpha)
    around = ground[alpha == 0]
    assert around[:, 0].max() <= 1, "the person's red spreads"
    assert np.abs(around[:, 1].astype(int) - 205).max() < 12, "details stay"
    # A blur that does not leave the person out has a halo.
    assert background_of("blur").behind(scene, np.zeros_like(alpha))[alpha == 0][:, 0].max() > 50


def test_a_picture_covers_the_frame_in_its_own_shape(tmp_path, frame):
    tall = np.zeros((200, 100, 3), np.uint8)
    tall[:, :, 0] = np.linspace(0, 255, 200)[:, None].astype(np.uint8)
    write_image(tmp_path / "tall.png", tall)
    ground = background_of(str(tmp_path / "tall.png")).behind(frame, np.zeros((60, 80), np.float32))
    assert ground.shape == frame.shape
    # 75 of the 200 rows are seen, the middle ones.
    assert abs(int(ground[0, 0, 0]) - 255 * 63 / 199) < 4
    assert abs(int(ground[-1, 0, 0]) - 255 * 136 / 199) < 4


@pytest.mark.parametrize("text", ["#12345", "#12345g", "green", "none/there", ""])
def test_what_is_no_background_is_refused(text):
    with pytest.raises((UsageError, ImageError)):
        background_of(text)


def test_a_picture_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(ImageError, match="cannot be decoded"):
        background_of(str(tmp_path / "no.png"))
    with pytest.raises(ImageError, match="cannot be read"):
        background_of(str(tmp_path / "absent.png"))


def test_chequers_keep_up_with_the_size(frame):
    ground = Chequered()
    alpha = np.zeros((60, 80), np.float32)
    first = ground.behind(frame, alpha)
    assert ground.behind(frame, alpha) is first
    assert ground.behind(frame[:20], alpha).shape == (20, 80, 3)


def test_masks_are_grey_and_hard_ones_have_two_levels():
    alpha = np.array([[0, 0.25, 0.5, 0.75, 1]], np.float32)
    assert grey(alpha)[0].tolist() == [0, 64, 128, 191, 255]
    assert hardened(alpha).tolist() == [[0, 0, 0, 1, 1]]


def test_edges_are_soft_in_the_middle_of_the_probabilities_alone():
    alpha = np.array([[0, 0.2, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1]], np.float32)
    found = soft_edge(alpha)[0]
    assert found.dtype == np.float32
    assert found[[0, 1, 2, 6, 7, 8]].tolist() == [0, 0, 0, 1, 1, 1]
    assert found[4] == 0.5
    assert 0 < found[3] < 0.4
    assert np.allclose(found[3] + found[5], 1)


def test_tiles_stand_beside_each_other_under_their_names(frame):
    assert beside_each_other([("one", frame)]) is frame
    row = beside_each_other([("one", frame), ("two", 255 - frame)])
    assert row.shape == (80, 160, 3)
    assert np.array_equal(row[20:, :80], frame)
    assert np.array_equal(row[20:, 80:], 255 - frame)
    assert len(np.unique(row[:20, :80])) > 1, "the name is on its bar"
    grid = beside_each_other([(str(index), frame) for index in range(5)])
    assert grid.shape == (160, 240, 3)
    assert (grid[80:, 160:] == 0).all()
