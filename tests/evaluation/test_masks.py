from __future__ import annotations

import cv2
import numpy as np
import pytest

from deploykit.errors import ImageError
from deploykit.evaluation.masks import read_mask

TRUTH = np.array([[False, True, True], [False, False, True]])


def write(path, pixels):
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_two_levels_are_a_mask(tmp_path, full, suffix):
    path = write(tmp_path / f"mask{suffix}", TRUTH.astype(np.uint8) * full)
    assert np.array_equal(read_mask(path), TRUTH)


def test_sixteen_bits_equal_channels_and_an_opaque_alpha_channel_are_a_mask(tmp_path):
    for name, pixels in {
        "deep": TRUTH.astype(np.uint16) * 65535,
        "deep_ones": TRUTH.astype(np.uint16),
        "colour": np.repeat(TRUTH.astype(np.uint8)[:, :, None] * 255, 3, axis=2),
        "opaque": np.dstack([TRUTH.astype(np.uint8) * 255] * 3 + [np.full(TRUTH.shape, 255, np.uint8)]),
    }.items():
        assert np.array_equal(read_mask(write(tmp_path / f"{name}.png", pixels)), TRUTH), name


def test_empty_and_full_masks_are_masks(tmp_path):
    assert not read_mask(write(tmp_path / "empty.png", np.zeros((4, 5), np.uint8))).any()
    assert read_mask(write(tmp_path / "full.png", np.full((4, 5), 255, np.uint8))).all()
    assert read_mask(write(tmp_path / "ones.png", np.ones((4, 5), np.uint8))).all()


def ramp(top: int, dtype=np.uint8) -> np.ndarray:
    return np.linspace(0, top, 60).astype(dtype).reshape(6, 10)


@pytest.mark.parametrize(
    ("name", "pixels", "reason", "found"),
    [
        ("matte", ramp(255), "a soft matte", "60 levels, 0, 4, 8, 12, ..."),
        ("classes", np.array([[0, 1], [2, 3]], np.uint8), "not binary", "4 levels, 0, 1, 2, 3"),
        ("twos", np.array([[0, 2]], np.uint8), "not binary", "2 levels, 0, 2"),
        ("half", np.array([[0, 128]], np.uint8), "not binary", "2 levels, 0, 128"),
        ("grey", np.array([[7, 7]], np.uint8), "not binary", "1 levels, 7"),
        ("wide", TRUTH.astype(np.uint16) * 255, "not binary", "2 levels, 0, 255"),
        ("red", np.dstack([TRUTH * 0, TRUTH * 0, TRUTH * 255]).astype(np.uint8), "in colour", "channels that differ"),
        ("see-through", np.dstack([TRUTH * 255] * 4).astype(np.uint8), "transparent", "alpha"),
    ],
)
def test_everything_else_is_named(tmp_path, name, pixels, reason, found):
    path = write(tmp_path / f"{name}.png", pixels)
    with pytest.raises(ImageError) as refused:
        read_mask(path)
    assert reason in refused.value.message
    assert found in str(refused.value.found)
    assert refused.value.where == str(path)


def test_a_mask_saved_as_jpeg_is_named_as_what_it_became(tmp_path):
    mask = np.zeros((40, 40), np.uint8)
    mask[9:31, 11:27] = 255
    with pytest.raises(ImageError, match="JPEG"):
        read_mask(write(tmp_path / "mask.jpg", mask))


def test_a_matte_is_cut_on_request_only_and_only_a_matte(tmp_path):
    matte = write(tmp_path / "matte.png", ramp(255))
    assert np.array_equal(read_mask(matte, 0.5), ramp(255) >= 127.5)
    assert np.array_equal(read_mask(matte, 0.9), ramp(255) >= 229.5)
    deep = write(tmp_path / "deep.png", ramp(65535, np.uint16))
    assert np.array_equal(read_mask(deep, 0.25), ramp(65535, np.uint16) >= 16383.75)
    ones = write(tmp_path / "ones.png", TRUTH.astype(np.uint8))
    assert np.array_equal(read_mask(ones, 0.5), TRUTH), "a mask of 0 and 1 is no faint matte"
    classes = write(tmp_path / "classes.png", np.array([[0, 1], [2, 3]], np.uint8))
    with pytest.raises(ImageError, match="not binary"):
        read_mask(classes, 0.5)


def test_files_that_are_no_image_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("text.png", "empty.png"):
        with pytest.raises(ImageError, match="cannot be decoded"):
            read_mask(tmp_path / name)
    with pytest.raises(ImageError, match="cannot be read"):
        read_mask(tmp_path / "absent.png")
    write(tmp_path / "float.tiff", TRUTH.astype(np.float32))
    with pytest.raises(ImageError, match="float32"):
        read_mask(tmp_path / "float.tiff")
