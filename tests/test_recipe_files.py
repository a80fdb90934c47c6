"""Recipes on disk: sizes and variants of one, where recipes are found, and the project file."""

from __future__ import annotations

import os

import pytest
from recipe_case import PRIOR, TENSOR, recipe_with, table, write_recipe

from deploykit.errors import RecipeError, UsageError
from deploykit.recipe import bundled_recipes, default_recipe, load_recipe, project_recipe
from deploykit.vocab import InputKind, Precision, Target


@pytest.fixture
def written(tmp_path):
    return write_recipe(tmp_path)


# Sizes and variants


def test_with_size_changes_only_the_image(tmp_path):
    recipe = recipe_with(tmp_path, "inputs", [table()["inputs"][0], TENSOR])
    other = recipe.with_size(96, 48)
    assert [item.shape for item in other.file.inputs] == [(1, 3, 96, 48), (1, 4)]
    assert [item.shape for item in recipe.file.inputs] == [(1, 3, 32, 64), (1, 4)]
    assert (other.path, other.sha256) == (recipe.path, recipe.sha256)


def test_with_size_changes_the_feedback_with_the_image(tmp_path):
    recipe = recipe_with(tmp_path, "inputs", [table()["inputs"][0], PRIOR, {**TENSOR, "name": "pose"}])
    other = recipe.with_size(96, 48)
    assert [item.shape for item in other.file.inputs] == [(1, 3, 96, 48), (1, 1, 96, 48), (1, 4)]
    assert [item.shape for item in recipe.file.inputs] == [(1, 3, 32, 64), (1, 1, 32, 64), (1, 4)]


def test_feedback_of_another_size_than_the_image_keeps_its_recipe(tmp_path):
    half = {**PRIOR, "shape": [1, 1, 16, 32]}
    with pytest.raises(UsageError, match="at the size of the image") as caught:
        recipe_with(tmp_path, "inputs", [table()["inputs"][0], half]).with_size(96, 48)
    assert caught.value.found == "image [1, 3, 32, 64], prior [1, 1, 16, 32]"


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
    assert {"rcrnet", "rcrnet-1-video", "sinet"} <= set(bundled_recipes())
    assert list(bundled_recipes()) == sorted(bundled_recipes())
    for name, path in bundled_recipes().items():
        recipe = load_recipe(name)
        assert (recipe.name, recipe.path) == (name, path.resolve())
        weights = recipe.checkpoint_path()
        assert weights is None or weights.is_file()


def test_a_name_that_nobody_has_lists_those_there_are():
    with pytest.raises(RecipeError) as caught:
        load_recipe("sinnet")
    assert caught.value.found == "sinnet"
    assert ", ".join(bundled_recipes()) in caught.value.expected


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
