from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from deploykit import load_recipe
from deploykit.errors import ImageError, UsageError
from deploykit.images.synthetic import synthesize
from deploykit.quantize.calibration import FEWEST, calibration_set


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("sinet").with_size(64, 64)


def _photos(folder: Path, count: int, **given: np.ndarray) -> Path:
    folder.mkdir()
    for index in range(count):
        cv2.imwrite(str(folder / f"{index:02}.png"), synthesize(50 + index, 80).image)
    for name, image in given.items():
        cv2.imwrite(str(folder / f"{name}.png"), image)
    return folder


def test_synthetic_portraits_are_the_same_each_time_and_never_those_of_other_sets(recipe):
    first, again = calibration_set(recipe, count=8), calibration_set(recipe, count=8)
    assert first.record == again.record
    assert (len(first.ranges), len(first.judge)) == (6, 2)
    assert first.record.images == 8
    assert all(name.startswith("portrait 300000") for name in first.record.names)
    image = recipe.file.inputs[0].name
    assert all(
        np.array_equal(a.tensors[image], b.tensors[image]) for a, b in zip(first.ranges, again.ranges, strict=True)
    )
    assert calibration_set(recipe, count=9).record.sha256 != first.record.sha256


def test_a_folder_is_sampled_hashed_and_read_in_order_of_name(recipe, tmp_path):
    folder = _photos(tmp_path / "photos", 12)
    found = calibration_set(recipe, folder, 10)
    assert found.record.source == "photos"
    assert list(found.record.names) == sorted(found.record.names)
    assert len(set(found.record.names)) == 10
    (folder / found.record.names[0]).write_bytes((folder / found.record.names[1]).read_bytes())
    changed = calibration_set(recipe, folder, 10)
    assert changed.record.sha256 != found.record.sha256
    assert changed.record.notes == ("1 of 10 calibration images are copies",)


def test_copies_of_one_image_are_no_calibration(recipe, tmp_path):
    folder = _photos(tmp_path / "copies", FEWEST)
    for path in folder.iterdir():
        path.write_bytes((folder / "00.png").read_bytes())
    with pytest.raises(UsageError) as caught:
        calibration_set(recipe, folder)
    assert "1 different image among 8" in str(caught.value)


def test_too_few_images_are_refused(recipe, tmp_path):
    with pytest.raises(UsageError) as caught:
        calibration_set(recipe, _photos(tmp_path / "few", FEWEST - 1))
    assert f"{FEWEST - 1} images" in str(caught.value)
    with pytest.raises(UsageError):
        calibration_set(recipe, count=FEWEST - 1)


def test_images_that_cannot_be_read_are_named(recipe, tmp_path):
    folder = _photos(tmp_path / "damaged", FEWEST)
    (folder / "broken.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(ImageError) as caught:
        calibration_set(recipe, folder)
    assert "broken.png" in str(caught.value)


def test_images_that_show_nothing_are_named(recipe, tmp_path):
    flat = np.full((80, 80, 3), (30, 100, 200), np.uint8)
    with pytest.raises(ImageError) as caught:
        calibration_set(recipe, _photos(tmp_path / "flat", FEWEST, flat=flat))
    assert "flat.png" in str(caught.value)


def test_images_that_were_normalised_already_are_refused(recipe, tmp_path):
    folder = tmp_path / "dark"
    folder.mkdir()
    for index in range(FEWEST):
        image = (synthesize(50 + index, 80).image / 12).astype(np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), image)
    with pytest.raises(ImageError) as caught:
        calibration_set(recipe, folder)
    assert "mean pixel" in str(caught.value)


def test_classes_and_pixels_from_zero_to_one_are_no_photos(recipe, tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    for index in range(FEWEST):
        cv2.imwrite(str(folder / f"{index}.png"), (synthesize(50 + index, 80).image > 100).astype(np.uint8) * 2)
    with pytest.raises(ImageError) as caught:
        calibration_set(recipe, folder)
    assert "no pixel above 2" in str(caught.value)


def test_pixels_of_another_type_are_named_as_such(recipe, tmp_path):
    folder = _photos(tmp_path / "floats", FEWEST)
    cv2.imwrite(str(folder / "float.tiff"), synthesize(1, 80).image.astype(np.float32) / 255)
    with pytest.raises(ImageError) as caught:
        calibration_set(recipe, folder)
    assert "float.tiff: pixels of type float32" in str(caught.value)


def test_photos_one_folder_below_are_pointed_at(recipe, tmp_path):
    (tmp_path / "all").mkdir()
    folder = _photos(tmp_path / "all" / "photos", FEWEST)
    with pytest.raises(ImageError) as caught:
        calibration_set(recipe, tmp_path / "all")
    assert str(folder) in str(caught.value)
