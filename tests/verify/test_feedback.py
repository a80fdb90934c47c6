"""Feedback: what a frame gives to the next one, and what is likely beside a portrait."""

from __future__ import annotations

import copy
import tomllib

import numpy as np
import pytest

from deploykit.recipe import recipe_from_table
from deploykit.verify.feedback import first_feedback, likely_feedback, next_feedback

TABLE = tomllib.loads("""
format_version = 1
name = "follow"
description = "takes the frame before"
license = "MIT"
source = "this test"

[network]
factory = "sinet"

[[inputs]]
name = "image"
shape = [1, 3, 64, 96]
resize = { rule = "letterbox", pad_value = 200 }
source = "this test"

[[inputs]]
name = "prior"
kind = "tensor"
shape = [1, 1, 64, 96]
value_range = [0.0, 1.0]
feedback = { output = "scores", class_name = "person", first = 0.5 }
source = "this test"

[[outputs]]
name = "scores"
meaning = "scores"
classes = ["background", "person", "chair"]
""")


def recipe_with(tmp_path, class_name="person", rule="letterbox"):
    table = copy.deepcopy(TABLE)
    table["inputs"][0]["resize"]["rule"] = rule
    table["inputs"][1]["feedback"]["class_name"] = class_name
    return recipe_from_table(table, tmp_path / "follow.toml")


def test_the_first_frame_gets_the_value_of_the_recipe(tmp_path):
    (prior,) = first_feedback(recipe_with(tmp_path)).values()
    assert (prior.shape, prior.dtype) == ((1, 1, 64, 96), np.float32)
    assert (prior == 0.5).all()


@pytest.mark.parametrize(("class_name", "index"), [("background", 0), ("person", 1), ("chair", 2)])
def test_the_next_frame_gets_the_softmax_of_its_class(tmp_path, class_name, index):
    scores = np.random.default_rng(0).normal(0, 3, (1, 3, 64, 96)).astype(np.float32)
    given = next_feedback(recipe_with(tmp_path, class_name), {"scores": scores, "edge": scores[:, :1]})
    expected = np.exp(scores.astype(np.float64))
    expected = (expected / expected.sum(axis=1, keepdims=True))[:, index : index + 1]
    assert list(given) == ["prior"]
    assert given["prior"].dtype == np.float32
    assert given["prior"] == pytest.approx(expected, abs=1e-6)


def test_large_scores_do_not_overflow(tmp_path):
    scores = np.zeros((1, 3, 64, 96), np.float16)
    scores[:, 1] = 60000
    assert (next_feedback(recipe_with(tmp_path), {"scores": scores})["prior"] == 1).all()
    scores[:, 1] = np.nan
    assert np.isnan(next_feedback(recipe_with(tmp_path), {"scores": scores})["prior"]).all()


def square():
    mask = np.zeros((200, 200), np.uint8)
    mask[50:200, 60:140] = 1
    return mask


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_beside_a_portrait_the_mask_has_moved_a_little(tmp_path):
    recipe = recipe_with(tmp_path)
    priors = [likely_feedback(recipe, square(), np.random.default_rng(seed))["prior"] for seed in range(20)]
    # A square photo stands in the middle of the wide input, with nobody at its sides.
    still = np.zeros((64, 96), bool)
    still[16:64, 16 + 19 : 16 + 45] = True
    shares = [overlap(prior[0, 0] > 0.5, still) for prior in priors]
    assert all(prior.shape == (1, 1, 64, 96) and prior.min() == 0 and prior.max() == 1 for prior in priors)
    assert min(shares) > 0.6
    assert np.mean(shares) > 0.8
    assert max(shares) < 1
    again = likely_feedback(recipe, square(), np.random.default_rng(0))["prior"]
    assert np.array_equal(again, priors[0])


def test_the_background_is_likely_where_the_person_is_not(tmp_path):
    person, background = (
        likely_feedback(recipe_with(tmp_path, name), square(), np.random.default_rng(1))["prior"]
        for name in ("person", "background")
    )
    assert background == pytest.approx(1 - person)


def test_the_mask_follows_the_resize_rule_of_the_image(tmp_path):
    wide = likely_feedback(recipe_with(tmp_path, rule="stretch"), square(), np.random.default_rng(1))["prior"]
    boxed = likely_feedback(recipe_with(tmp_path), square(), np.random.default_rng(1))["prior"]
    assert (wide > 0.5).sum() > 1.3 * (boxed > 0.5).sum()
