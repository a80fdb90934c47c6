"""Recipes: what is valid, and how each invalid key is named."""

from __future__ import annotations

import datetime
import hashlib
import math

import pytest
from recipe_case import FEEDBACK, PRIOR, TENSOR, recipe_with, table, write_recipe

from deploykit.errors import RecipeError
from deploykit.recipe import bundled_recipes, load_recipe, recipe_from_table
from deploykit.vocab import FLOAT_PRECISIONS, ColorOrder, Layout, TensorSpec

REASON = "a reason that says something"


def bounds(**values):
    return {"reason": REASON, **values}


INVALID = [
    ("format_version", 2, "1"),
    ("format_version", True, "1"),
    ("format_version", 1.0, "1"),
    ("format_version", "1", "1"),
    ("name", "Big Name", "matches"),
    ("name", "two\n", "matches"),
    ("name", 3, "a text"),
    ("description", "", "a text that says something"),
    ("license", "  ", "a text that says something"),
    ("extra", 1, "no such key"),
    ("network", "sinet", "a table"),
    ("network.factory", "", "a text that says something"),
    ("network.arguments", [2], "a table"),
    ("network.arguments.width", math.nan, "a finite number"),
    ("network.arguments.since", datetime.date(2026, 1, 1), "a text, number, boolean, list or table"),
    ("network.args", {}, "no such key"),
    ("inputs", [], "at least one entry"),
    ("inputs", {}, "a list"),
    ("inputs.0.name", "an image", "matches"),
    ("inputs.0.name", "class", "reserved"),
    ("inputs.0.kind", "video", "'image' or 'tensor'"),
    ("inputs.0.shape.2", "32", "a whole number"),
    ("inputs.0.shape.2", True, "a whole number"),
    ("inputs.0.shape.2", 32.0, "a whole number"),
    ("inputs.0.shape", "1x3x32x32", "a list"),
    ("inputs.0.shape", [], "at least 1, batch first"),
    ("inputs.0.shape", [1, 3, 0, 32], "at least 1, batch first"),
    ("inputs.0.shape", [2, 3, 32, 32], "must be 1"),
    ("inputs.0.shape", [1, 3, 10**6, 10**6], "1 GiB"),
    ("inputs.0.mean.0", "0.5", "a number"),
    ("inputs.0.mean.0", False, "a number"),
    ("inputs.0.mean.0", math.nan, "a finite number"),
    ("inputs.0.mean", 0.5, "a list"),
    ("inputs.0.mean", [], "at least one entry"),
    ("inputs.0.scale.1", math.inf, "a finite number"),
    ("inputs.0.color_order", "RGB", "'rgb' or 'bgr'"),
    ("inputs.0.value_range.1", "255", "a number"),
    ("inputs.0.value_range.1", True, "a number"),
    ("inputs.0.resize.rule", "crop", "'stretch' or 'letterbox'"),
    ("inputs.0.resize.filter", "lanczos", "'bilinear'"),
    ("inputs.0.resize.pad_value", 256, "255"),
    ("inputs.0.resize.pad_value", 128.0, "a whole number"),
    ("inputs.0.resize.pad_value", True, "a whole number"),
    ("inputs.0.std", [1.0], "no such key"),
    ("inputs.0.feedback", "logits", "a table"),
    ("inputs.0", {**PRIOR, "feedback": {"output": "logits", "class_name": "person"}}, "which is missing"),
    ("inputs.0", {**PRIOR, "feedback": {**FEEDBACK, "first": "0"}}, "a number"),
    ("inputs.0", {**PRIOR, "feedback": {**FEEDBACK, "frames": 2}}, "no such key"),
    ("outputs", [], "at least one entry"),
    ("outputs.0.meaning", "", "a text that says something"),
    ("outputs.0.classes", "person", "a list"),
    ("outputs.0.classes.0", 1, "a text"),
    ("outputs.0.classes", ["person", "person"], "no two the same"),
    ("outputs.0.classes", ["person", " "], "a name for each class"),
    ("outputs.0.deploy", "yes", "true or false"),
    ("outputs.0.deploy", 1, "true or false"),
    ("checkpoint.path", 3, "a text"),
    ("checkpoint", {}, "a path, a key_map, or both"),
    ("checkpoint", {"key_map": {"a": "b"}, "sha256": "a" * 64}, "beside a path only"),
    ("checkpoint", {"key_map": {"a": "b"}, "key": "ema"}, "beside a path only"),
    ("checkpoint", {"path": "a.pt", "sha256": "A" * 64}, "matches"),
    ("checkpoint", {"path": "a.pt", "key_map": {"a": 1}}, "a text"),
    ("expected.fold_batch_norm", "38", "a whole number"),
    ("expected.fold_batch_norm", 38.0, "a whole number"),
    ("expected.fold_batch_norm", True, "a whole number"),
    ("expected.merge_branches", -1, "greater than or equal to 0"),
    ("expected.folds", 1, "no such key"),
    ("tolerances.fp32", bounds(max_abs_error="1e-4"), "a number"),
    ("tolerances.fp32", bounds(max_abs_error=True), "a number"),
    ("tolerances.fp32", bounds(max_abs_error=math.nan), "a finite number"),
    ("tolerances.fp32", bounds(relative_l2=0.0), "greater than 0"),
    ("tolerances.fp32", bounds(mask_agreement=1.5), "less than or equal to 1"),
    ("tolerances.fp32", bounds(wrong_pixels=0.0), "a whole number"),
    ("tolerances.fp32", bounds(), "at least one bound"),
    ("tolerances.fp32", {"max_abs_error": 1e-4}, "this key, which is missing"),
    ("tolerances.fp32", {"max_abs_error": 1e-4, "reason": "because"}, "at least 10 characters"),
    ("tolerances.fp32", {"max_abs_error": 1e-4, "reason": " " * 12}, "a text that says something"),
    ("tolerances.float64", bounds(relative_l2=1e-11), "at most 1e-12"),
    ("tolerances.float64", bounds(mask_agreement=0.5), "at most 1e-12"),
    ("tolerances.int4", bounds(relative_l2=0.1), "no such key"),
    ("variants.0", {"name": "Phone"}, "matches"),
    ("variants.0", {"name": "a", "targets": []}, "at least one entry"),
    ("variants.0", {"name": "a", "targets": ["onnx", "onnx"]}, "each entry once"),
    ("variants.0", {"name": "a", "targets": ["tflight"]}, "'onnx', 'coreml', 'tflite' or 'coreai'"),
    ("variants.0", {"name": "a", "precision": "int4"}, "'fp32', 'fp16'"),
    ("variants.0", {"name": "a", "layout": "NHWC"}, "'nchw' or 'nhwc'"),
    ("variants.0", {"name": "a", "size": [0, 32]}, "greater than or equal to 1"),
    ("variants.0", {"name": "a", "size": ["32", 32]}, "a whole number"),
    ("variants.0", {"name": "a", "opset": "18"}, "a whole number"),
    ("variants.0", {"name": "a", "opset": 0}, "greater than or equal to 1"),
    ("variants.0", {"name": "a", "minimum_os": 17}, "a text"),
]


def filled(path, value):
    """Longer lists for the cases that replace one number of a list that the valid table leaves out."""
    lists = {
        "inputs.0.mean.0": [value, 1.0, 1.0],
        "inputs.0.scale.1": [1.0, value, 1.0],
        "inputs.0.value_range.1": [0.0, value],
        "variants.0": [value],
    }
    return (path.rsplit(".", 1)[0], lists[path]) if path in lists else (path, value)


@pytest.mark.parametrize(("path", "value", "expected"), INVALID)
def test_an_invalid_value_names_file_key_found_and_expected(tmp_path, path, value, expected):
    with pytest.raises(RecipeError) as caught:
        recipe_with(tmp_path, *filled(path, value))
    error = caught.value
    assert error.where == str(tmp_path / "small.toml")
    assert error.message == "The file has 1 invalid entry."
    assert error.found.startswith(path)
    assert expected in error.found
    assert "missing" in error.found or ", found " in error.found
    assert "docs/recipes.md" in error.expected
    assert error.exit_code == 2


RULES = [
    ({"inputs.0.shape": [1, 3, 32]}, "[1, 3, height, width]"),
    ({"inputs.0.shape": [1, 1, 32, 32]}, "[1, 3, height, width]"),
    ({"inputs.0.mean": [1.0, 2.0]}, "mean needs 1 or 3 values"),
    ({"inputs.0.scale": [1.0, 0.0, 1.0]}, "scale other than 0"),
    ({"inputs.0.value_range": [0.0, 1.0]}, "pixels from 0 to 255"),
    ({"inputs.0": {**TENSOR, "value_range": [1.0, 1.0]}}, "smallest value to the largest"),
    ({"inputs.0": {**TENSOR, "mean": [1.0]}}, "no mean"),
    ({"inputs.0": {**TENSOR, "color_order": "bgr", "scale": [2.0]}}, "no color_order or scale"),
    ({"inputs.0.feedback": FEEDBACK}, "an image is not a probability"),
    ({"inputs.0": {**PRIOR, "shape": [1, 2, 32, 64]}}, "[1, 1, height, width]"),
    ({"inputs.0": {**PRIOR, "shape": [1, 64]}}, "[1, 1, height, width]"),
    ({"inputs.0": {**PRIOR, "value_range": [0.0, 255.0]}}, "value_range = [0.0, 1.0]"),
    ({"inputs.0": {**PRIOR, "feedback": {**FEEDBACK, "first": 1.5}}}, "from 0 to 1"),
    (
        {"inputs.0": {**PRIOR, "feedback": {**FEEDBACK, "output": "mask"}}},
        "at least two classes (logits), not from mask",
    ),
    ({"inputs.0": {**PRIOR, "feedback": {**FEEDBACK, "class_name": "dog"}}}, "(background, person), not from dog"),
    ({"inputs.0.name": "logits"}, "inputs and outputs of different names, but these are both: logits"),
    ({"outputs.0.deploy": False}, "at least one output that is deployed"),
    ({"variants": [{"name": "a"}, {"name": "a"}]}, "variants of different names, but these come twice: a"),
]


@pytest.mark.parametrize(("change", "expected"), RULES)
def test_values_that_contradict_each_other_are_refused(tmp_path, change, expected):
    ((path, value),) = change.items()
    with pytest.raises(RecipeError) as caught:
        recipe_with(tmp_path, path, value)
    assert expected in caught.value.found
    assert caught.value.message == "The file has 1 invalid entry."


def test_two_inputs_of_one_name_are_refused(tmp_path):
    one = table()["inputs"][0]
    with pytest.raises(RecipeError, match="inputs of different names, but these come twice: image"):
        recipe_with(tmp_path, "inputs", [one, one])


def test_every_missing_key_is_named_at_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        recipe_from_table({"format_version": 1}, tmp_path / "small.toml")
    for key in ("name", "description", "license", "source", "network", "inputs", "outputs"):
        assert f"{key}: expected this key, which is missing" in caught.value.found
    assert caught.value.message == "The file has 7 invalid entries."


def test_only_the_first_ten_of_many_faults_are_shown(tmp_path):
    changed = table() | {f"extra{index}": 1 for index in range(30)}
    with pytest.raises(RecipeError) as caught:
        recipe_from_table(changed, tmp_path / "small.toml")
    assert caught.value.message == "The file has 30 invalid entries."
    assert caught.value.found.count("no such key") == 10


def test_a_long_value_is_shortened(tmp_path):
    with pytest.raises(RecipeError) as caught:
        recipe_with(tmp_path, "network.factory", ["x" * 5000])
    assert len(caught.value.found) < 200


def test_a_valid_recipe_keeps_its_values(tmp_path):
    written = write_recipe(tmp_path)
    recipe = load_recipe(written)
    (given,) = recipe.file.inputs
    assert recipe.name == "small"
    assert recipe.path == written.resolve()
    assert recipe.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert given.spec() == TensorSpec("image", (1, 3, 32, 64), "float32", Layout.NCHW)
    assert (given.height, given.width) == (32, 64)
    assert given.color_order is ColorOrder.RGB
    assert recipe.checkpoint_path() is None
    assert recipe.file.tolerances.float64.relative_l2 == 1e-12
    for precision in FLOAT_PRECISIONS:
        assert recipe.file.tolerances.of(precision).reason


def test_whole_numbers_are_numbers(tmp_path):
    (given,) = recipe_with(tmp_path, "inputs.0.mean", [104, 117.5, 123]).file.inputs
    assert given.mean == (104.0, 117.5, 123.0)
    assert all(type(value) is float for value in given.mean)


def test_the_checkpoint_is_beside_the_recipe(tmp_path):
    recipe = recipe_with(tmp_path, "checkpoint", {"path": "../weights/a.pt"})
    assert recipe.checkpoint_path() == (tmp_path.parent / "weights" / "a.pt").resolve()


def test_a_key_map_needs_no_checkpoint(tmp_path):
    recipe = recipe_with(tmp_path, "checkpoint", {"key_map": {"net": ""}})
    assert recipe.checkpoint_path() is None
    assert recipe.file.checkpoint.key_map == {"net": ""}


def test_feedback_is_kept(tmp_path):
    _, prior = recipe_with(tmp_path, "inputs", [table()["inputs"][0], PRIOR]).file.inputs
    assert prior.feedback.model_dump() == FEEDBACK


@pytest.mark.parametrize("change", [{"deploy": False}, {"classes": ["person"]}])
def test_feedback_comes_from_scores_that_the_file_has(tmp_path, change):
    mask = {"name": "mask", "meaning": "scores", "classes": ["background", "person"]}
    given = {**table(), "inputs": [PRIOR], "outputs": [{**mask, "name": "logits", **change}, mask]}
    with pytest.raises(RecipeError, match=r"at least two classes \(mask\), not from logits"):
        recipe_from_table(given, tmp_path / "small.toml")


def test_only_deployed_outputs_are_in_the_file(tmp_path):
    edge = {"name": "edge", "meaning": "for training", "deploy": False}
    recipe = recipe_with(tmp_path, "outputs", [*table()["outputs"], edge])
    assert [output.name for output in recipe.deployed()] == ["logits"]


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_a_table_in_a_manifest_gives_the_same_recipe(name, tmp_path):
    recipe = load_recipe(name)
    again = recipe_from_table(recipe.file.model_dump(mode="json"), tmp_path / "manifest.json")
    assert again.file == recipe.file
    assert again.path == tmp_path / "manifest.json"
    assert again.sha256 == recipe_from_table(recipe.file.model_dump(mode="json"), tmp_path).sha256
    assert again.sha256 != recipe_from_table(table(), tmp_path).sha256


def test_a_manifest_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="a table"):
        recipe_from_table(None, tmp_path / "manifest.json")
