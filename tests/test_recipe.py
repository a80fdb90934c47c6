"""Recipes: what is valid, how each invalid key is named, and where recipes are found."""

from __future__ import annotations

import copy
import datetime
import hashlib
import math
import os
import tomllib

import pytest

from deploykit.errors import RecipeError, UsageError
from deploykit.recipe import (
    bundled_recipes,
    default_recipe,
    load_recipe,
    project_recipe,
    recipe_from_table,
)
from deploykit.vocab import ColorOrder, InputKind, Layout, Precision, Target, TensorSpec

TEXT = """
format_version = 1
name = "small"
description = "a network of this test"
license = "MIT"
source = "this test"

[network]
factory = "sinet"

[[inputs]]
name = "image"
shape = [1, 3, 32, 64]
source = "this test"

[[outputs]]
name = "logits"
meaning = "scores"
classes = ["background", "person"]
"""
REASON = "a reason that says something"
TENSOR = {"name": "prior", "kind": "tensor", "shape": [1, 4], "value_range": [-1.0, 1.0], "source": "this test"}


def table_with(path, value):
    """The valid table with one value put at a dotted path."""
    table = copy.deepcopy(tomllib.loads(TEXT))
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = table
    for part in parents:
        place = place[part] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = value
    return table


def recipe_with(tmp_path, path, value):
    return recipe_from_table(table_with(path, value), tmp_path / "small.toml")


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(TEXT, "utf-8")
    return path


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
    ("outputs", [], "at least one entry"),
    ("outputs.0.meaning", "", "a text that says something"),
    ("outputs.0.classes", "person", "a list"),
    ("outputs.0.classes.0", 1, "a text"),
    ("outputs.0.classes", ["person", "person"], "no two the same"),
    ("outputs.0.classes", ["person", " "], "a name for each class"),
    ("outputs.0.deploy", "yes", "true or false"),
    ("outputs.0.deploy", 1, "true or false"),
    ("checkpoint.path", 3, "a text"),
    ("checkpoint", {}, "this key, which is missing"),
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
    ("tolerances.int8", bounds(relative_l2=0.1), "no such key"),
    ("variants.0", {"name": "Phone"}, "matches"),
    ("variants.0", {"name": "a", "targets": []}, "at least one entry"),
    ("variants.0", {"name": "a", "targets": ["onnx", "onnx"]}, "each entry once"),
    ("variants.0", {"name": "a", "targets": ["tflight"]}, "'onnx', 'coreml' or 'tflite'"),
    ("variants.0", {"name": "a", "precision": "int8"}, "'fp32' or 'fp16'"),
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
    one = tomllib.loads(TEXT)["inputs"][0]
    with pytest.raises(RecipeError, match="inputs of different names, but these come twice: image"):
        recipe_with(tmp_path, "inputs", [one, one])


def test_every_missing_key_is_named_at_once(tmp_path):
    with pytest.raises(RecipeError) as caught:
        recipe_from_table({"format_version": 1}, tmp_path / "small.toml")
    for key in ("name", "description", "license", "source", "network", "inputs", "outputs"):
        assert f"{key}: expected this key, which is missing" in caught.value.found
    assert caught.value.message == "The file has 7 invalid entries."


def test_only_the_first_ten_of_many_faults_are_shown(tmp_path):
    table = tomllib.loads(TEXT) | {f"extra{index}": 1 for index in range(30)}
    with pytest.raises(RecipeError) as caught:
        recipe_from_table(table, tmp_path / "small.toml")
    assert caught.value.message == "The file has 30 invalid entries."
    assert caught.value.found.count("no such key") == 10


def test_a_long_value_is_shortened(tmp_path):
    with pytest.raises(RecipeError) as caught:
        recipe_with(tmp_path, "network.factory", ["x" * 5000])
    assert len(caught.value.found) < 200


def test_a_valid_recipe_keeps_its_values(written):
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
    for precision in Precision:
        assert recipe.file.tolerances.of(precision).reason


def test_whole_numbers_are_numbers(tmp_path):
    (given,) = recipe_with(tmp_path, "inputs.0.mean", [104, 117.5, 123]).file.inputs
    assert given.mean == (104.0, 117.5, 123.0)
    assert all(type(value) is float for value in given.mean)


def test_the_checkpoint_is_beside_the_recipe(tmp_path):
    recipe = recipe_with(tmp_path, "checkpoint", {"path": "../weights/a.pt"})
    assert recipe.checkpoint_path() == (tmp_path.parent / "weights" / "a.pt").resolve()


def test_only_deployed_outputs_are_in_the_file(tmp_path):
    edge = {"name": "edge", "meaning": "for training", "deploy": False}
    recipe = recipe_with(tmp_path, "outputs", [*tomllib.loads(TEXT)["outputs"], edge])
    assert [output.name for output in recipe.deployed()] == ["logits"]


@pytest.mark.parametrize("name", sorted(bundled_recipes()))
def test_a_table_in_a_manifest_gives_the_same_recipe(name, tmp_path):
    recipe = load_recipe(name)
    again = recipe_from_table(recipe.file.model_dump(mode="json"), tmp_path / "manifest.json")
    assert again.file == recipe.file
    assert again.path == tmp_path / "manifest.json"
    assert again.sha256 == recipe_from_table(recipe.file.model_dump(mode="json"), tmp_path).sha256
    assert again.sha256 != recipe_from_table(tomllib.loads(TEXT), tmp_path).sha256


def test_a_manifest_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="a table"):
        recipe_from_table(None, tmp_path / "manifest.json")


# Sizes and variants


def test_with_size_changes_only_the_image(tmp_path):
    recipe = recipe_with(tmp_path, "inputs", [tomllib.loads(TEXT)["inputs"][0], TENSOR])
    other = recipe.with_size(96, 48)
    assert [item.shape for item in other.file.inputs] == [(1, 3, 96, 48), (1, 4)]
    assert [item.shape for item in recipe.file.inputs] == [(1, 3, 32, 64), (1, 4)]
    assert (other.path, other.sha256) == (recipe.path, recipe.sha256)


@pytest.mark.parametrize("size", [(0, 32), (32, -1), (10**5, 10**5)])
def test_a_size_out_of_range_is_refused(written, size):
    with pytest.raises(UsageError, match="out of range"):
        load_recipe(written).with_size(*size)


def test_a_recipe_without_an_image_has_no_size(tmp_path):
    with pytest.raises(UsageError, match=r"no image input.*\n.*\n.*prior \[1, 4\]"):
        recipe_with(tmp_path, "inputs", [TENSOR]).with_size(32, 32)


def test_variants_are_found_by_name(tmp_path):
    given = {"name": "phone", "targets": ["tflite"], "precision": "fp16", "input_kind": "image", "size": [64, 32]}
    recipe = recipe_with(tmp_path, "variants", [given, {"name": "plain"}])
    phone, plain = recipe.variant("phone"), recipe.variant("plain")
    assert (phone.targets, phone.precision, phone.input_kind) == ((Target.TFLITE,), Precision.FP16, InputKind.IMAGE)
    assert phone.size == (64, 32)
    assert plain.targets == tuple(Target)
    with pytest.raises(UsageError) as caught:
        recipe.variant("tablet")
    assert (caught.value.found, caught.value.expected) == ("tablet", "phone, plain")


def test_a_recipe_without_variants_says_none(written):
    with pytest.raises(UsageError, match="expected: none"):
        load_recipe(written).variant("phone")


# Where recipes are


def test_the_bundled_recipes_load_by_name():
    assert list(bundled_recipes()) == ["rcrnet", "sinet"]
    for name, path in bundled_recipes().items():
        recipe = load_recipe(name)
        assert (recipe.name, recipe.path) == (name, path.resolve())
        assert recipe.checkpoint_path().is_file()


def test_a_name_that_nobody_has_lists_those_there_are():
    with pytest.raises(RecipeError) as caught:
        load_recipe("sinnet")
    assert caught.value.found == "sinnet"
    assert "rcrnet, sinet" in caught.value.expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name = [", "not valid TOML"),
        (b"name = \xff", "not valid TOML"),
        (b"a = 1\na = 2", "not valid TOML"),
        (b"\xef\xbb\xbfname = 1", "not valid TOML"),
        (b"", "7 invalid|8 invalid"),
        (b"a = " + b"[" * 100_000, "not valid TOML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content, message):
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert caught.value.where == str(path)


def test_a_folder_and_an_absent_file_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="found: a folder"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="found: nothing"):
        load_recipe(tmp_path / "absent.toml")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_refused(written):
    written.chmod(0)
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(written)


# The project file


def test_without_a_project_file_the_default_is_taken(tmp_path):
    assert project_recipe(tmp_path) is None
    assert default_recipe(tmp_path) == "sinet"


def test_the_project_file_names_a_bundled_recipe_or_a_path_beside_it(tmp_path, written):
    project = tmp_path / "deploykit.toml"
    project.write_text('recipe = "rcrnet"\n', "utf-8")
    assert default_recipe(tmp_path) == "rcrnet"
    project.write_text('recipe = "small.toml"\n', "utf-8")
    assert load_recipe(default_recipe(tmp_path)).name == "small"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('recipes = "sinet"', "recipes: expected no such key"),
        ("", "recipe: expected this key, which is missing"),
        ("recipe = 1", "recipe: expected a text, found 1"),
        ('recipe = ""', "a text that says something"),
        ("recipe = sinet", "Invalid value"),
    ],
)
def test_a_project_file_that_is_wrong_is_refused(tmp_path, text, found):
    (tmp_path / "deploykit.toml").write_text(text, "utf-8")
    with pytest.raises(RecipeError) as caught:
        default_recipe(tmp_path)
    assert found in caught.value.found
    assert caught.value.where == str(tmp_path / "deploykit.toml")
