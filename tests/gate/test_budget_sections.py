"""Budgets as people write them, in a recipe and in the project file."""

from __future__ import annotations

from pathlib import Path

import pytest
from recipe_case import recipe_with

from deploykit.errors import RecipeError
from deploykit.gate_records import Budget, Measure
from deploykit.recipe import load_recipe, project_file
from deploykit.vocab import Precision, Target

GOOD = {"measure": "bytes", "limit": 200_000, "reason": "fits beside the app's own code"}


def test_a_budget_of_a_recipe_becomes_a_record(tmp_path: Path) -> None:
    given = {**GOOD, "max_growth": 0.02, "targets": ["onnx"], "precisions": ["int8", "fp16"]}
    (section,) = recipe_with(tmp_path, "budgets", [given]).file.budgets
    assert section.record("small.toml") == Budget(
        Measure.BYTES,
        GOOD["reason"],
        200_000,
        0.02,
        targets=(Target.ONNX,),
        precisions=(Precision.INT8, Precision.FP16),
        source="small.toml",
    )


def test_a_budget_of_the_project_may_name_recipes(tmp_path: Path) -> None:
    (tmp_path / "deploykit.toml").write_text(
        'recipe = "sinet"\n[[budgets]]\nmeasure = "macs"\nlimit = 1_000_000\nrecipes = ["sinet"]\n'
        'reason = "half of what the old phone manages"\n',
        "utf-8",
    )
    project = project_file(tmp_path)
    assert project is not None
    assert project.budgets[0].record("deploykit.toml").recipes == ("sinet",)
    assert project_file(tmp_path / "gone") is None


def test_the_bundled_recipes_still_load() -> None:
    assert load_recipe("sinet").file.budgets == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limit": None}, "a limit, a max_growth, or both"),
        ({"limit": -1}, "limit"),
        ({"limit": "many"}, "a number"),
        ({"limit": True}, "a number"),
        ({"limit": float("nan")}, "finite"),
        ({"max_growth": 1.0}, "max_growth"),
        ({"max_growth": -0.1}, "max_growth"),
        ({"reason": "because"}, "at least 10 characters"),
        ({"measure": "size"}, "'bytes'"),
        ({"targets": ["onnx", "onnx"]}, "each entry once"),
        ({"targets": ["caffe"]}, "'onnx'"),
        ({"limits": 5}, "no such key"),
        ({"recipes": ["sinet"]}, "no such key"),
        ({"measure": "miou_points_lost", "max_growth": 0.1}, "limit alone for miou_points_lost"),
        ({"measure": "latency_s"}, "devices beside a limit of latency_s"),
        ({"measure": "load_s"}, "devices beside a limit of load_s"),
        ({"measure": "latency_s", "limit": None, "max_growth": 0.001}, "noise on any machine"),
        ({"limit": None, "max_growth": 0.1, "devices": ["phone"]}, "devices beside a limit only"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, change: dict, said: str) -> None:
    given = {key: value for key, value in {**GOOD, **change}.items() if value is not None}
    with pytest.raises(RecipeError) as caught:
        recipe_with(tmp_path, "budgets", [given])
    assert "budgets.0" in str(caught.value)
    assert said in str(caught.value)
