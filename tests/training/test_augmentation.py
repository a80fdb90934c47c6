"""Deformations and textures: ranges, alignment of image and mask, determinism."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from deploykit.models.table import MODELS
from deploykit.training.augmentation import (
    AUGMENTATIONS,
    BORDER_GREY,
    ELB,
    PORTRAITNET,
    SAPPM,
    Ranges,
    augment,
    blur,
    change_brightness,
    change_color,
    change_contrast,
    change_sharpness,
    deform,
    deformation_matrix,
    texture,
)

ALWAYS = Ranges(probability=1.0)
STILL = Ranges(
    probability=1.0, rotation=(0, 0), resizing=(1, 1), translation=(0, 0), color=(1, 1), brightness=(1, 1),
    contrast=(1, 1), sharpness=(1, 1), blur_kernels=(), noise_sigma=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """A blob on a textured ground, with its mask as the fourth channel."""
    rng = np.random.default_rng(3)
    found = np.zeros((224, 224, 4), np.uint8)
    found[:, :, :3] = cv2.GaussianBlur(rng.integers(0, 256, (224, 224, 3), dtype=np.uint8), (0, 0), 0.7)
    mask = np.zeros((224, 224), np.uint8)
    cv2.ellipse(mask, (100, 120), (40, 70), 15, 0, 360, 1, -1)
    found[:, :, 3] = mask
    return found


def drawn_matrices(ranges: Ranges, count: int = 3000) -> list[tuple[bool, float, float, float, float]]:
    """Return flip, angle in degrees, factor, and shift as a share of the side, of ``count`` drawn deformations."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(count):
        matrix = deformation_matrix(201, rng, ranges)
        linear = matrix[:2, :2]
        flip = bool(np.linalg.det(linear) < 0)
        factor = math.sqrt(abs(np.linalg.det(linear)))
        # The second column is no part of the flip: (sine, cosine) times the factor.
        angle = math.degrees(math.atan2(linear[0, 1], linear[1, 1]))
        moved = (matrix @ [100, 100, 1])[:2] - 100
        found.append((flip, angle, factor, moved[0] / 201, moved[1] / 201))
    return found


def test_deformations_fill_their_ranges() -> None:
    flips, *values = zip(*drawn_matrices(ALWAYS), strict=True)
    assert all(flips)
    for found, (low, high) in zip(values, [(-45, 45), (0.5, 1.5), (-0.25, 0.25), (-0.25, 0.25)], strict=True):
        margin = (high - low) / 100
        assert low - 1e-9 <= min(found) < low + margin
        assert high - margin < max(found) <= high + 1e-9
        assert np.mean(found) == pytest.approx((low + high) / 2, abs=2 * margin)


def test_every_deformation_happens_half_of_the_time() -> None:
    flips, angles, factors, right, down = map(np.array, zip(*drawn_matrices(PORTRAITNET), strict=True))
    for happened in (flips, np.abs(angles) > 1e-9, np.abs(factors - 1) > 1e-9, np.abs(right) + np.abs(down) > 1e-9):
        assert np.mean(happened) == pytest.approx(0.5, abs=0.04)
    assert np.mean(flips & (np.abs(angles) > 1e-9)) == pytest.approx(0.25, abs=0.04), "independently of each other"


def test_nothing_happens_with_probability_zero(portrait: np.ndarray) -> None:
    never = dataclasses.replace(PORTRAITNET, probability=0.0)
    found = augment(portrait, 224, np.random.default_rng(0), never)
    assert np.array_equal(found.deformed, portrait[:, :, :3])
    assert np.array_equal(found.textured, portrait[:, :, :3])
    assert np.array_equal(found.mask, portrait[:, :, 3])


def test_nothing_but_a_flip_happens_with_ranges_of_no_width(portrait: np.ndarray) -> None:
    found = augment(portrait, 224, np.random.default_rng(0), STILL)
    assert np.array_equal(found.deformed, portrait[:, ::-1, :3])
    assert np.array_equal(found.textured, portrait[:, ::-1, :3])
    assert np.array_equal(found.mask, portrait[:, ::-1, 3])


def test_a_generator_decides_the_pixels(portrait: np.ndarray) -> None:
    first, again, other = (augment(portrait, 96, np.random.default_rng(seed)) for seed in (1, 1, 2))
    for name in ("deformed", "textured", "mask"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
        assert not np.array_equal(getattr(first, name), getattr(other, name))


@pytest.mark.parametrize("size", [96, 224, 320])
@pytest.mark.parametrize("network", sorted(AUGMENTATIONS))
def test_views_have_their_types_and_sizes(portrait: np.ndarray, network: str, size: int) -> None:
    rng = np.random.default_rng(7)
    for _ in range(5):
        found = augment(portrait, size, rng, AUGMENTATIONS[network])
        for view in (found.deformed, found.textured):
            assert view.dtype == np.float32
            assert view.shape == (size, size, 3)
            assert view.min() >= 0
            assert view.max() <= 255
        assert found.mask.dtype == np.uint8
        assert found.mask.shape == (size, size)
        assert set(np.unique(found.mask)) <= {0, 1}


def disagreement(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the pixels of clear colour, of all pixels of clear colour, on which image and mask differ."""
    bright, dark = image[:, :, 0] > 200, image[:, :, 0] < 56
    return float(np.mean(np.where(bright, mask == 0, mask == 1)[bright | dark]))


@pytest.mark.parametrize("size", [96, 224, 300])
def test_mask_stays_on_the_portrait(portrait: np.ndarray, size: int) -> None:
    drawn = np.repeat(portrait[:, :, 3:] * np.uint8(255), 3, axis=2)
    rng = np.random.default_rng(11)
    shifted, moved = [], []
    still = cv2.resize(portrait[:, :, 3], (size, size), interpolation=cv2.INTER_NEAREST)
    for _ in range(25):
        image, mask = deform(drawn, portrait[:, :, 3], size, rng)
        assert disagreement(image, mask) == 0
        shifted.append(disagreement(image, np.roll(mask, 2, axis=1)))
        moved.append(np.mean(mask != still))
    assert np.mean(shifted) > 0.003, "the measure sees a shift of two pixels"
    assert np.mean(moved) > 0.05, "nothing was moved"


def test_outside_of_the_picture_is_grey_and_background(portrait: np.ndarray) -> None:
    smaller = dataclasses.replace(STILL, resizing=(0.5, 0.5))
    everywhere = np.ones((224, 224), np.uint8)
    image, mask = deform(portrait[:, :, :3], everywhere, 224, np.random.default_rng(0), smaller)
    assert np.all(image[:50] == BORDER_GREY)
    assert np.all(image[:, -50:] == BORDER_GREY)
    assert mask[:50].max() == 0
    assert mask[60:-60, 60:-60].min() == 1
    assert mask.sum() == pytest.approx(224**2 / 4, rel=0.02)


def test_positive_angles_turn_anticlockwise() -> None:
    turned = dataclasses.replace(STILL, rotation=(30, 30))
    matrix = deformation_matrix(201, np.random.default_rng(0), turned)
    # The flip sends the left to the right; the right then rises.
    assert (matrix @ [0, 100, 1])[1] == pytest.approx(100 - 100 * math.sin(math.radians(30)))


PIXEL = np.array([[[200, 100, 0]]], np.uint8)


def test_enhancements_by_hand() -> None:
    # The grey of this pixel is 0.299 x 200 + 0.587 x 100 = 118.5, which OpenCV rounds to 119 or 118.
    assert np.abs(change_color(PIXEL, 0.5)[0, 0].astype(int) - [159, 109, 59]).max() <= 1
    assert np.abs(change_color(PIXEL, 0.0)[0, 0].astype(int) - 118.5).max() <= 0.5
    assert change_brightness(PIXEL, 1.5)[0, 0].tolist() == [255, 150, 0]
    pair = np.array([[[200, 200, 200], [100, 100, 100]]], np.uint8)
    assert change_contrast(pair, 1.4)[0, :, 0].tolist() == [220, 80]
    assert change_contrast(pair, 0.0)[0, :, 0].tolist() == [150, 150]
    step = np.zeros((5, 6, 3), np.uint8)
    step[:, 3:] = 130
    # Three of thirteen shares of the filter lie in the next column.
    assert change_sharpness(step, 0.0)[2, :, 0].tolist() == [0, 0, 30, 100, 130, 130]
    assert change_sharpness(step, 2.0)[2, :, 0].tolist() == [0, 0, 0, 160, 130, 130]


@pytest.mark.parametrize("change", [change_color, change_brightness, change_contrast, change_sharpness])
def test_a_factor_of_one_changes_nothing(change, portrait: np.ndarray) -> None:
    image = np.ascontiguousarray(portrait[:, :, :3])
    assert np.array_equal(change(image, 1.0), image)
    assert not np.array_equal(change(image, 0.8), image)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_blur_takes_detail_away(kind: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    three, five = blur(image, 3, kind), blur(image, 5, kind)
    assert image.std() > three.std() > five.std()
    assert five.mean() == pytest.approx(image.mean(), abs=3)


def test_brightness_fills_its_range() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    only = dataclasses.replace(STILL, brightness=(0.4, 1.7))
    rng = np.random.default_rng(2)
    found = [texture(grey, rng, only)[0, 0, 0] for _ in range(500)]
    assert 40 <= min(found) < 43
    assert 167 < max(found) <= 170


def test_noise_has_its_deviation() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    only = dataclasses.replace(STILL, noise_sigma=10)
    noise = texture(grey, np.random.default_rng(4), only) - 128
    assert noise.mean() == pytest.approx(0, abs=0.2)
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert np.mean(np.abs(noise) < 10) == pytest.approx(0.6827, abs=0.01), "normally distributed"
    assert abs(np.corrcoef(noise[:, :, 0].ravel(), noise[:, :, 1].ravel())[0, 1]) < 0.03


def test_every_texture_happens_half_of_the_time(portrait: np.ndarray) -> None:
    rng = np.random.default_rng(6)
    image = np.ascontiguousarray(portrait[:32, :32, :3])
    for name in ("color", "brightness", "contrast", "sharpness", "blur_kernels", "noise_sigma"):
        only = dataclasses.replace(STILL, probability=0.5, **{name: getattr(PORTRAITNET, name)})
        changed = [not np.array_equal(texture(image, rng, only), image) for _ in range(400)]
        assert np.mean(changed) == pytest.approx(0.5, abs=0.1), name


def test_ranges_are_those_of_the_papers() -> None:
    assert AUGMENTATIONS.keys() == MODELS.keys()
    assert Ranges(
        probability=0.5, rotation=(-45, 45), resizing=(0.5, 1.5), translation=(-0.25, 0.25), color=(0.4, 1.7),
        brightness=(0.4, 1.7), contrast=(0.6, 1.5), sharpness=(0.8, 1.3), blur_kernels=(3, 5), noise_sigma=10,
    ) == PORTRAITNET  # fmt: skip
    assert dataclasses.replace(STILL, probability=0.5, brightness=(0.8, 1.2), contrast=(0.8, 1.2)) == ELB, (
        "ELB flips, and changes brightness and contrast"
    )
    assert SAPPM.rotation == (0, 0)
