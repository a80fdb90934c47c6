"""Samples: seeded, shaped by the recipe, and fed to a file the way that the file wants them."""

from __future__ import annotations

import tomllib

import cv2
import numpy as np
import pytest

from deploykit.errors import ImageError
from deploykit.images.preprocess import normalise
from deploykit.images.synthetic import synthesize
from deploykit.recipe import recipe_from_table
from deploykit.records import TensorRecord
from deploykit.verify.samples import PORTRAIT_SEED, draw_samples, feed, picture_sample, read_back
from deploykit.vocab import ColorOrder, Layout

TABLE = tomllib.loads("""
format_version = 1
name = "two"
description = "two inputs"
license = "MIT"
source = "this test"

[network]
factory = "sinet"

[[inputs]]
name = "image"
shape = [1, 3, 16, 24]
color_order = "bgr"
mean = [100.0, 110.0, 120.0]
scale = [0.01, 0.02, 0.03]
source = "this test"

[[inputs]]
name = "prior"
kind = "tensor"
shape = [1, 1, 8, 12]
value_range = [-2.0, 0.5]
source = "this test"

[[outputs]]
name = "scores"
meaning = "scores"
""")


@pytest.fixture
def recipe(tmp_path):
    return recipe_from_table(TABLE, tmp_path / "two.toml")


def same(one, other):
    return all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_samples_are_the_same_every_time(recipe):
    first, second = (draw_samples(recipe, noise=2, portraits=2) for _ in range(2))
    assert [sample.name for sample in first] == ["noise 0", "noise 1", "portrait 0", "portrait 1"]
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert not any(same(a, b) for a in first for b in first if a is not b)


def test_the_callers_generator_is_untouched(recipe):
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    draw_samples(recipe, portraits=1)
    assert np.array_equal(before, np.random.get_state()[1])


def test_samples_have_the_shapes_of_the_recipe_and_only_pictures_are_pictures(recipe):
    noise, portrait = draw_samples(recipe, noise=1, portraits=1)
    for sample in (noise, portrait):
        assert {name: (x.shape, x.dtype) for name, x in sample.tensors.items()} == {
            "image": ((1, 3, 16, 24), np.float32),
            "prior": ((1, 1, 8, 12), np.float32),
        }
        assert {name: x.shape for name, x in sample.pixels.items()} == {"image": (16, 24, 3)}
        assert np.array_equal(sample.tensors["image"], normalise(sample.pixels["image"], recipe.file.inputs[0]))
    assert (noise.picture, portrait.picture) == (False, True)


def test_noise_covers_all_pixel_values_and_the_range_of_a_tensor(recipe):
    (sample,) = draw_samples(recipe, noise=1, portraits=0)
    prior = sample.tensors["prior"]
    assert sample.pixels["image"].min() < 10
    assert sample.pixels["image"].max() > 245
    assert -2.0 <= prior.min() < -1.5
    assert 0.2 < prior.max() <= 0.5


def test_an_input_with_feedback_holds_what_the_frame_before_would_give(tmp_path):
    prior = {**TABLE["inputs"][1], "shape": [1, 1, 16, 24], "value_range": [0.0, 1.0]}
    prior["feedback"] = {"output": "scores", "class_name": "person", "first": 0.25}
    scores = {**TABLE["outputs"][0], "classes": ["background", "person"]}
    table = {**TABLE, "inputs": [TABLE["inputs"][0], prior], "outputs": [scores]}
    recipe = recipe_from_table(table, tmp_path / "two.toml")
    cv2.imwrite(str(tmp_path / "me.png"), np.full((30, 30, 3), 9, dtype=np.uint8))
    noise, *portraits, photo = draw_samples(recipe, [tmp_path / "me.png"], noise=1, portraits=2)
    assert 0.4 < np.mean(noise.tensors["prior"]) < 0.6
    assert np.std(noise.tensors["prior"]) > 0.2
    for index, sample in enumerate(portraits):
        person = cv2.resize(synthesize(PORTRAIT_SEED + index, 64).mask, (24, 16), interpolation=cv2.INTER_AREA) > 0
        before = sample.tensors["prior"][0, 0] > 0.5
        assert (person & before).sum() / (person | before).sum() > 0.7
    assert not same(*portraits)
    assert (photo.tensors["prior"] == 0.25).all()
    pixels = np.full((5, 5, 3), 7, dtype=np.uint8)
    assert (picture_sample(recipe, pixels).tensors["prior"] == 0.25).all()
    given = picture_sample(recipe, pixels, {"prior": np.ones((1, 1, 16, 24), np.float32)})
    assert (given.tensors["prior"] == 1).all()
    assert np.array_equal(given.tensors["image"], picture_sample(recipe, pixels).tensors["image"])


def test_a_network_without_images_has_no_pictures(tmp_path):
    recipe = recipe_from_table({**TABLE, "inputs": [{**TABLE["inputs"][1], "shape": [1, 7]}]}, tmp_path)
    samples = draw_samples(recipe, noise=1, portraits=1)
    assert [sample.picture for sample in samples] == [False, False]
    assert all(sample.tensors["prior"].shape == (1, 7) for sample in samples)


def test_photos_follow_under_their_own_names(recipe, tmp_path):
    path = tmp_path / "me.png"
    cv2.imwrite(str(path), np.full((30, 30, 3), (250, 128, 5), dtype=np.uint8))
    sample = draw_samples(recipe, [path], noise=1, portraits=0)[-1]
    assert (sample.name, sample.picture) == ("me.png", True)
    assert sample.pixels["image"][3, 3].tolist() == [250, 128, 5], "blue first, as the network wants it"
    with pytest.raises(ImageError):
        draw_samples(recipe, [tmp_path / "absent.png"])


def test_one_photo_is_one_sample(recipe):
    sample = picture_sample(recipe, np.full((5, 5, 3), (1, 2, 3), dtype=np.uint8))
    assert sample.pixels["image"][0, 0].tolist() == [3, 2, 1]
    assert same(sample, picture_sample(recipe, np.full((5, 5, 3), (1, 2, 3), dtype=np.uint8)))


# What a file takes


def record(name, shape, dtype="float32", layout=Layout.NCHW, color_order=None):
    return TensorRecord(name, shape, dtype, layout, color_order)


@pytest.fixture
def sample(recipe):
    (drawn,) = draw_samples(recipe, noise=1, portraits=0)
    return drawn


def test_tensors_are_fed_in_the_layout_and_type_of_the_file(recipe, sample):
    given = feed(sample, [record("image", (1, 3, 16, 24)), record("prior", (1, 1, 8, 12), "float16")], recipe)
    assert np.array_equal(given["image"], sample.tensors["image"])
    assert given["prior"].dtype == np.float16
    turned = feed(sample, [record("image", (1, 16, 24, 3), layout=Layout.NHWC)], recipe)["image"]
    assert turned.shape == (1, 16, 24, 3)
    assert turned.flags["C_CONTIGUOUS"]
    assert np.array_equal(turned.transpose(0, 3, 1, 2), sample.tensors["image"])


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize(("order", "flipped"), [(None, False), (ColorOrder.BGR, False), (ColorOrder.RGB, True)])
def test_pixels_are_fed_in_the_layout_and_colour_order_of_the_file(recipe, sample, layout, order, flipped):
    shape = (1, 16, 24, 3) if layout is Layout.NHWC else (1, 3, 16, 24)
    given = feed(sample, [record("image", shape, "uint8", layout, order)], recipe)["image"]
    assert (given.dtype, given.shape) == (np.uint8, shape)
    assert given.flags["C_CONTIGUOUS"]
    seen = given[0] if layout is Layout.NHWC else given[0].transpose(1, 2, 0)
    pixels = sample.pixels["image"]
    assert np.array_equal(seen, pixels[:, :, ::-1] if flipped else pixels)
    assert not np.array_equal(seen, pixels if flipped else pixels[:, :, ::-1])


def test_a_vector_has_no_layout(tmp_path):
    recipe = recipe_from_table({**TABLE, "inputs": [{**TABLE["inputs"][1], "shape": [1, 7]}]}, tmp_path)
    (sample,) = draw_samples(recipe, noise=1, portraits=0)
    assert feed(sample, [record("prior", (1, 7), layout=Layout.NHWC)], recipe)["prior"].shape == (1, 7)


def test_what_a_file_gives_is_read_back_in_the_layout_of_the_network():
    scores, vector = np.arange(24.0).reshape(1, 2, 3, 4), np.arange(7.0)[None]
    outputs = {"scores": scores.transpose(0, 2, 3, 1), "vector": vector}
    records = [record("scores", (1, 3, 4, 2), layout=Layout.NHWC), record("vector", (1, 7), layout=Layout.NHWC)]
    found = read_back(outputs, records)
    assert np.array_equal(found["scores"], scores)
    assert np.array_equal(found["vector"], vector)
    assert np.array_equal(read_back({"scores": scores}, [record("scores", scores.shape)])["scores"], scores)
