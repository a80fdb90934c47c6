from __future__ import annotations

import numpy as np
import pytest
from mask_cases import blob, pairs
from scipy import ndimage
from sklearn.metrics import f1_score

from deploykit.metrics.boundary_f1 import BAND_WIDTH, boundary_band, boundary_f1


def row(text: str) -> np.ndarray:
    return np.array([[character == "#" for character in text]])


def scipy_band(truth: np.ndarray, width: int = 15) -> np.ndarray:
    square = np.ones((width, width), bool)
    return ndimage.binary_dilation(truth, square) & ~ndimage.binary_erosion(truth, square, border_value=1)


def test_the_band_of_the_paper():
    assert BAND_WIDTH == 15
    truth = np.zeros((60, 60), bool)
    truth[20:45, 20:45] = True
    band = boundary_band(truth)
    # 7 pixels to each side of the boundary.
    assert np.array_equal(np.flatnonzero(band[30]), [*range(13, 27), *range(38, 52)])


def test_a_case_counted_by_hand():
    truth = row("#####......")
    assert np.array_equal(boundary_band(truth, 3), row("....##.....") > 0)
    # In the band one pixel is right, and one too many; what is wrong outside the band does not count.
    assert boundary_f1(row("######...##"), truth, 3) == 2 / 3
    assert boundary_f1(row("#####...###"), truth, 3) == 1.0
    assert boundary_f1(row("####......."), truth, 3) == 0.0
    assert boundary_f1(row("######.."), row("####...."), 5) == pytest.approx(2 * 2 / (2 * 2 + 2))


@pytest.mark.parametrize("width", [3, 7, 15])
def test_scipy_and_scikit_learn_agree(width):
    for found, truth in pairs():
        band = scipy_band(truth, width)
        assert np.array_equal(boundary_band(truth, width), band)
        expected = f1_score(truth[band], found[band], zero_division=0.0)
        assert boundary_f1(found, truth, width) == pytest.approx(expected, abs=1e-12)


def test_another_band_another_frame_and_another_order_give_other_figures():
    found, truth = pairs()[7]
    score = boundary_f1(found, truth)
    narrower = scipy_band(truth, 13)
    assert abs(score - f1_score(truth[narrower], found[narrower])) > 1e-4
    assert abs(score - boundary_f1(truth, found)) > 1e-4, "the band is that of the truth"
    bust = np.zeros((60, 60), bool)
    bust[20:, 15:45] = True
    assert np.array_equal(boundary_band(bust), scipy_band(bust))
    assert not boundary_band(bust)[-1, 30], "the picture's frame is no boundary"
    square = np.ones((15, 15), bool)
    framed = ndimage.binary_dilation(bust, square) & ~ndimage.binary_erosion(bust, square, border_value=0)
    assert framed[-1, 30], "and with a border of background it would be one"


def test_the_extremes():
    truth = blob(5)
    empty, full = np.zeros_like(truth), np.ones_like(truth)
    assert boundary_f1(truth, truth) == 1.0
    assert boundary_f1(empty, truth) == 0.0
    assert boundary_f1(~truth, truth) == 0.0
    assert boundary_f1(truth, empty) is None
    assert boundary_f1(truth, full) is None
    one = empty.copy()
    one[20, 20] = True
    assert boundary_f1(one, one) == 1.0
    assert boundary_f1(full, one) == pytest.approx(2 / (15 * 15 + 1))


@pytest.mark.parametrize("width", [0, 1, 2, 14])
def test_a_width_without_a_middle_is_refused(width):
    with pytest.raises(ValueError, match="odd"):
        boundary_band(blob(1), width)


def test_different_sizes_are_refused():
    with pytest.raises(ValueError, match="sizes"):
        boundary_f1(blob(1), blob(1, (40, 48)))
