"""Masks that differ show it, in numbers and in pictures."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import torch

from deploykit.artifact import find_artifacts
from deploykit.report_page.matching import match
from deploykit.report_page.pictures import Picture, _difference_picture, galleries
from deploykit.report_page.reading import collect


def pixels(picture: Picture) -> np.ndarray:
    kind, _, encoded = picture.source.partition(",")
    assert kind.startswith("data:image/")
    found = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert found.shape[:2] == (picture.height, picture.width)
    return found[:, :, ::-1]


def test_a_difference_keeps_every_wrong_pixel_in_a_smaller_picture():
    expected = np.zeros((1000, 700), bool)
    expected[200:800, 100:600] = True
    mask = expected.copy()
    mask[500, 300], mask[10, 10] = False, True
    found = pixels(_difference_picture(mask, expected, "a difference"))
    colours = {tuple(one) for one in found.reshape(-1, 3).tolist()}
    assert found.shape == (224, 157, 3)
    assert (64, 156, 255) in colours
    assert (255, 196, 0) in colours
    same = pixels(_difference_picture(expected, expected, "none"))
    assert len({tuple(one) for one in same.reshape(-1, 3).tolist()}) == 2


def test_another_checkpoint_is_not_taken_as_the_reference(folder, tmp_path):
    path = tmp_path / "chain.pt"
    state = torch.load(path)
    state["head.bias"] = state["head.bias"] + torch.tensor([0.0, 50.0])
    torch.save(state, path)
    matched = match(collect(folder))
    (gallery,) = galleries(matched, recipes=[tmp_path / "chain.toml"], say=lambda message: None)
    assert "another one than the files were made from" in " ".join(gallery.notes)


def test_pictures_of_the_users_images_are_small_and_few(folder, tmp_path):
    (artifact,) = find_artifacts(folder)
    photos = tmp_path / "photos"
    photos.mkdir()
    rng = np.random.default_rng(0)
    for index in range(8):
        cv2.imwrite(str(photos / f"{index}.png"), rng.integers(0, 255, (300, 500, 3), dtype=np.uint8))
    matched = match(collect(folder))
    (gallery,) = galleries(matched, images=photos, recipes=[tmp_path / "chain.toml"], say=lambda message: None)
    assert gallery.notes == ()
    assert [row.name for row in gallery.rows] == [f"{index}.png" for index in range(6)]
    assert gallery.count == 6 * 4
    assert artifact.recipe == gallery.recipe
    for row in gallery.rows:
        assert pixels(row.photo).shape == (134, 224, 3)
        assert row.files[0].different == 0
        assert row.files[0].pixels == 300 * 500
