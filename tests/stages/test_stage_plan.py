"""Which stages recipes and options give: a pure function, without a file or a process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from recipe_case import recipe_with

from deploykit.errors import RecipeError, TargetError, UsageError
from deploykit.stages.plan import DEFAULT_PRECISIONS, PipelineOptions, cells_of, plan_stages, settings_of
from deploykit.stages.records import StageKind
from deploykit.vocab import OutputKind, Precision, Target

HERE = Path("recipes")
ALL = PipelineOptions()


def recipe(section=None, **changes):
    found = recipe_with(HERE, "pipeline", section) if section is not None else recipe_with(HERE, "name", "small")
    return replace(found, file=found.file.model_copy(update=changes))


def planned(*recipes, options=ALL, missing=None, budgets=False):
    return {one.name: one for one in plan_stages(recipes, options, missing=missing or {}, budgets=budgets)}


def test_by_default_every_target_gets_three_precisions():
    stages = planned(recipe())
    exports = [one for one in stages.values() if one.kind is StageKind.EXPORT]
    assert [(one.target, one.precision) for one in exports] == [
        (target, precision) for target in Target for precision in DEFAULT_PRECISIONS
    ]
    assert not any(one.skip for one in exports)
    assert stages["small/verify/tflite-int8"].needs == ("small/export/tflite-int8",)
    assert stages["small/bench"].takes == tuple(one.name for one in exports)
    assert [one.name for one in stages.values() if one.alone] == ["small/bench", "gate"]
    assert stages["gate"].skip.startswith("no budgets")
    assert not planned(recipe(), budgets=True)["gate"].skip


def test_the_order_of_a_plan_holds_every_need_before_what_needs_it():
    seen: set[str] = set()
    for one in plan_stages([recipe(), recipe(name="other")], ALL, missing={}, budgets=True):
        assert {*one.needs, *one.after, *one.takes} <= seen
        seen.add(one.name)


def test_what_is_impossible_is_skipped_by_default_and_refused_when_named():
    palettes = recipe({"precisions": ["fp32", "palette4"]})
    skipped = {cell.name: cell.skip for cell in cells_of(palettes, ALL, {}) if cell.skip}
    assert set(skipped) == {"onnx-palette4", "tflite-palette4"}
    assert "no operator for palettes" in skipped["onnx-palette4"]
    with pytest.raises(TargetError, match="no operator for palettes"):
        cells_of(palettes, replace(ALL, targets=(Target.COREML, Target.ONNX)), {})


def test_a_target_that_is_not_installed_is_skipped_by_default_and_refused_when_named():
    missing = {Target.COREML: "not installed: coremltools"}
    assert {cell.skip for cell in cells_of(recipe(), ALL, missing) if cell.target is Target.COREML} == {
        "not installed: coremltools"
    }
    for named in (recipe({"targets": ["coreml"]}), recipe()):
        options = ALL if named.file.pipeline else replace(ALL, targets=(Target.COREML,))
        with pytest.raises(TargetError, match="coreml is not installed"):
            cells_of(named, options, missing)
    with pytest.raises(UsageError, match="nothing to make"):
        planned(recipe(), missing=dict.fromkeys(Target, "not installed"))


def test_the_command_line_goes_before_the_recipe_and_that_before_the_defaults():
    section = {
        "targets": ["onnx"],
        "precisions": ["fp16"],
        "output_kind": "mask",
        "samples": 5,
        "calibration": "photos",
    }
    mine = recipe(section)
    assert [cell.name for cell in cells_of(mine, ALL, {})] == ["onnx-fp16"]
    named = replace(ALL, precisions=(Precision.INT8,), samples=7)
    assert [cell.name for cell in cells_of(mine, named, {})] == ["onnx-int8"]
    settings = settings_of(mine, named)
    assert (settings.output_kind, settings.samples, settings.clips) == (OutputKind.MASK, 7, 2)
    assert settings.calibration == (HERE / "photos").resolve()
    assert settings_of(recipe(), ALL).samples == 32
    with pytest.raises(RecipeError, match=r"pipeline\.targets"):
        recipe({"targets": []})


def test_what_is_left_out_says_so_and_stops_nothing():
    stages = planned(recipe(), options=replace(ALL, skip=frozenset({StageKind.VERIFY, StageKind.BENCH})))
    assert stages["small/verify/onnx-fp32"].skip == "--skip verify"
    assert stages["small/bench"].skip == "--skip bench"
    assert not stages["small/evaluate/onnx-fp32"].skip


def test_two_recipes_of_one_name_are_refused():
    other = replace(recipe(), path=HERE / "other.toml")
    with pytest.raises(UsageError, match="same name") as raised:
        planned(recipe(), other)
    assert raised.value.where == f"{recipe().path}, {HERE / 'other.toml'}"
    assert raised.value.next_step
