from __future__ import annotations

import cv2
import numpy as np
import pytest
from evaluation_cases import box, write_pair

from deploykit.errors import ImageError, UsageError
from deploykit.evaluation.dataset import HELD_OUT_SEEDS, SyntheticSet, drawn_side, read_folder
from deploykit.evaluation.evaluate import CLIP_SEEDS
from deploykit.images.synthetic import synthesize
from deploykit.training import plan


def test_the_synthetic_set_is_what_training_keeps_apart():
    assert not set(plan.TRAIN_SEEDS) & {*HELD_OUT_SEEDS, *CLIP_SEEDS}
    assert not set(HELD_OUT_SEEDS) & set(CLIP_SEEDS)
    portraits = SyntheticSet(3)
    assert portraits.names == ("900000", "900001", "900002")
    sample = portraits.read("900001", 96)
    drawn = synthesize(900_001, 96)
    assert np.array_equal(sample.image, drawn.image)
    assert np.array_equal(sample.mask, drawn.mask > 0)


def test_inputs_too_small_or_large_to_draw_get_the_nearest_size():
    assert SyntheticSet(1).read("900000", 20).image.shape == (64, 64, 3)
    assert drawn_side(2000) == 1024


@pytest.mark.parametrize("count", [0, -1, 129])
def test_a_number_of_samples_that_there_are_not_is_refused(count):
    with pytest.raises(UsageError, match="1 to 128"):
        SyntheticSet(count)


def test_pairs_of_equal_names_are_read_in_order_at_their_own_size(tmp_path):
    write_pair(tmp_path, "b", box(), full=1)
    write_pair(tmp_path, "a", box(30, 50))
    jpeg = tmp_path / "images" / "c.JPG"
    cv2.imwrite(str(jpeg), np.zeros((20, 10, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "masks" / "c.bmp"), np.zeros((20, 10), np.uint8))
    (tmp_path / "images" / ".hidden").write_text("")
    found = read_folder(tmp_path)
    assert found.names == ("a", "b", "c")
    assert found.invalid == ()
    sample = found.read("a", 224)
    assert sample.image.shape == (30, 50, 3)
    assert np.array_equal(sample.mask, box(30, 50))
    assert np.array_equal(found.read("b", 224).mask, box())


def spoil(folder):
    """Write one good pair and one of everything that can be wrong; return name → part of the reason."""
    write_pair(folder, "good", box())
    image, _ = write_pair(folder, "alone", box())
    image.unlink()
    _, mask = write_pair(folder, "bare", box())
    mask.unlink()
    write_pair(folder, "size", box())
    cv2.imwrite(str(folder / "masks" / "size.png"), np.zeros((64, 95), np.uint8))
    write_pair(folder, "soft", box())
    cv2.imwrite(str(folder / "masks" / "soft.png"), np.arange(64 * 96).reshape(64, 96).astype(np.uint8))
    write_pair(folder, "classes", box(), full=2)
    write_pair(folder, "broken", box())
    (folder / "images" / "broken.png").write_bytes(b"broken")
    write_pair(folder, "torn", box())
    (folder / "masks" / "torn.png").write_bytes((folder / "masks" / "good.png").read_bytes()[:40])
    write_pair(folder, "twice", box())
    (folder / "images" / "twice.jpg").write_bytes((folder / "images" / "twice.png").read_bytes())
    (folder / "images" / "list.txt").write_text("no image")
    (folder / "masks" / "old").mkdir()
    (folder / "masks" / "gone.png").symlink_to(folder / "nowhere.png")
    return {
        "masks/alone.png": "The image of this mask is missing",
        "images/bare.png": "The mask of this image is missing",
        "masks/size.png": "95x64, the image 96x64",
        "masks/soft.png": "a soft matte: 256 levels",
        "masks/classes.png": "not binary: 2 levels, 0, 2",
        "images/broken.png": "The image cannot be decoded",
        "masks/torn.png": "The mask cannot be decoded",
        "images/twice.jpg": "Several files have this name: twice.jpg, twice.png",
        "images/list.txt": "no image: a file",
        "masks/old": "no image: a folder",
        "masks/gone.png": "no image: a link to nothing",
    }


def test_everything_that_is_wrong_is_listed_and_counted_at_once(tmp_path):
    wrong = spoil(tmp_path)
    with pytest.raises(ImageError) as refused:
        read_folder(tmp_path)
    assert f"{len(wrong)} cannot be used; 1 pairs can" in refused.value.message
    lines = str(refused.value.found).strip().splitlines()
    assert len(lines) == len(wrong)
    for name, reason in wrong.items():
        (line,) = [line for line in lines if line.strip().startswith(f"{name}:")]
        assert reason in line
    for option in ("--skip-invalid", "--mask-threshold"):
        assert option in str(refused.value.next_step)


def test_on_request_the_rest_is_taken_and_what_was_left_out_is_kept_in_mind(tmp_path):
    wrong = spoil(tmp_path)
    found = read_folder(tmp_path, skip_invalid=True)
    assert found.names == ("good",)
    assert {one.name for one in found.invalid} == set(wrong)
    cut = read_folder(tmp_path, skip_invalid=True, threshold=0.5)
    assert cut.names == ("good", "soft")
    assert len(cut.invalid) == len(wrong) - 1


def test_nothing_left_is_an_error_even_on_request(tmp_path):
    _, mask = write_pair(tmp_path, "bare", box())
    mask.unlink()
    with pytest.raises(ImageError, match="1 cannot be used; 0 pairs can") as refused:
        read_folder(tmp_path, skip_invalid=True)
    assert "--skip-invalid" not in str(refused.value.next_step)


def test_another_layout_is_refused_with_the_one_that_is_meant(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    for folder, found in ((tmp_path, "photo.jpg"), (tmp_path / "absent", "nothing"), (tmp_path / "photo.jpg", "file")):
        with pytest.raises(ImageError) as refused:
            read_folder(folder)
        assert found in str(refused.value.found)
        assert "images/ and masks/" in str(refused.value.expected)
    (tmp_path / "images").mkdir()
    with pytest.raises(ImageError) as refused:
        read_folder(tmp_path)
    assert str(refused.value.where).endswith("masks")
    (tmp_path / "masks").mkdir()
    with pytest.raises(ImageError, match="no images and masks"):
        read_folder(tmp_path)


def test_progress_is_reported(tmp_path):
    write_pair(tmp_path, "a", box())
    said: list[str] = []
    read_folder(tmp_path, report=said.append)
    assert said == ["reading 0 of 1 pairs"]
