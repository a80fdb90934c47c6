"""The maps that the losses derive from a mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deploykit.training.losses import Targets
from deploykit.training.losses.targets import (
    boundary_band,
    boundary_nearness,
    contour_lines,
    odd_kernel,
    thickness,
)


@pytest.fixture
def square() -> np.ndarray:
    """A mask of 40 x 40 with a portrait of 20 x 20 in the middle."""
    mask = np.zeros((40, 40), np.uint8)
    mask[10:30, 10:30] = 1
    return mask


@pytest.mark.parametrize(
    ("height", "kernel", "width"), [(224, 15, 4), (512, 35, 9), (160, 11, 3), (96, 7, 2), (32, 3, 1), (448, 29, 8)]
)
def test_widths_follow_the_size(height: int, kernel: int, width: int) -> None:
    assert odd_kernel(15, 224, height) == kernel
    assert thickness(4, 224, height) == width


def test_band_is_dilation_minus_erosion(square: np.ndarray) -> None:
    row = boundary_band(square, 5)[20]
    assert row[8:12].tolist() == [1, 1, 1, 1]
    assert row.sum() == 8
    by_hand = np.zeros_like(square)
    for y in range(40):
        for x in range(40):
            around = square[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3]
            by_hand[y, x] = around.max() - around.min()
    assert np.array_equal(boundary_band(square, 5), by_hand)
    assert not np.array_equal(boundary_band(square, 7), by_hand)


def test_contours_lie_on_the_outline(square: np.ndarray) -> None:
    row = contour_lines(square, 4)[20]
    assert np.flatnonzero(row).tolist() == [8, 9, 10, 11, 12, 27, 28, 29, 30, 31]
    assert contour_lines(square, 1).sum() == 4 * 19
    square[15:25, 15:25] = 0
    assert contour_lines(square, 1)[20].sum() == 4, "a hole has an outline too"


def test_contours_follow_the_edge_of_the_image(square: np.ndarray) -> None:
    square[10:, 10:30] = 1
    assert contour_lines(square, 4)[-1, 20] == 1
    assert boundary_band(square, 5)[-1, 20] == 0


def test_nearness_falls_from_the_boundary_to_the_farthest_pixel() -> None:
    mask = np.zeros((21, 21), np.uint8)
    mask[:, :5] = 1
    row = boundary_nearness(mask)[10]
    # The farthest pixels are 15 columns to the right of the last pixel that touches the portrait.
    assert row.tolist() == pytest.approx([1 - abs(d) / 15 for d in (-4, -3, -2, -1, 0, *range(16))])
    brute = np.argwhere(np.isin(np.arange(441).reshape(21, 21) % 21, (4, 5)))
    for y, x in ((0, 0), (20, 20), (3, 12)):
        distance = np.hypot(*(brute - [y, x]).T).min()
        assert boundary_nearness(mask)[y, x] == pytest.approx(1 - distance / 15, abs=1e-5)


@pytest.mark.parametrize("value", [0, 1])
def test_a_mask_of_one_class_has_no_boundary(value: int) -> None:
    mask = np.full((16, 16), value, np.uint8)
    assert boundary_nearness(mask).max() == 0
    assert boundary_band(mask, 5).max() == 0


def test_targets_stack_the_maps_of_a_batch(square: np.ndarray) -> None:
    masks = np.stack([square, np.zeros_like(square), square.T])
    targets = Targets(torch.from_numpy(masks).long())
    assert targets.height == 40
    for drawn, one in (
        (targets.band(5), boundary_band(square, 5)),
        (targets.contours(4), contour_lines(square, 4)),
        (targets.nearness(), boundary_nearness(square)),
    ):
        assert drawn.dtype is torch.float32
        assert drawn.shape == (3, 40, 40)
        assert np.array_equal(drawn[0].numpy(), one.astype(np.float32))
        assert drawn[1].max() == 0
