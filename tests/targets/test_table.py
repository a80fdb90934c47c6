"""The support matrix, and the plan that decides how a file is made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from deploykit.errors import TargetError
from deploykit.lowering import ExportOptions, options_for, plan_export
from deploykit.pipeline import installed_targets
from deploykit.recipe import load_recipe
from deploykit.records import ExportPlan, QuantizationPlan, to_json
from deploykit.targets.schemes import check_scheme, precisions_of, scheme
from deploykit.targets.table import TARGETS, check_plan, part, require, target_of
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target

PLAN = ExportPlan(
    target=Target.ONNX,
    precision=Precision.FP32,
    layout=Layout.NCHW,
    input_kind=InputKind.TENSOR,
    output_kind=OutputKind.LOGITS,
    input_shapes=((1, 3, 224, 224),),
    passes=("fold_batch_norm",),
    opset=18,
)
OTHER = {
    "target": Target.TFLITE,
    "precision": Precision.FP16,
    "layout": Layout.NHWC,
    "input_kind": InputKind.IMAGE,
    "output_kind": OutputKind.MASK,
    "input_shapes": ((1, 3, 224, 192),),
    "passes": (),
    "opset": 20,
    "minimum_os": "iOS17",
    "quantization": QuantizationPlan(None, None, True, 0.6, "0" * 64),
}


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("sinet")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(ExportPlan)])
def test_the_digest_depends_on_every_field(field):
    changed = replace(PLAN, **{field: OTHER[field]})
    assert changed.digest() != PLAN.digest()
    assert changed.folder() != PLAN.folder()


def test_the_digest_is_stable():
    written = {
        "target": "onnx",
        "precision": "fp32",
        "layout": "nchw",
        "input_kind": "tensor",
        "output_kind": "logits",
        "input_shapes": [[1, 3, 224, 224]],
        "passes": ["fold_batch_norm"],
        "opset": 18,
        "minimum_os": None,
    }
    assert PLAN.digest() == hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()
    assert PLAN.folder() == f"onnx-fp32-{PLAN.digest()[:8]}"


@pytest.mark.parametrize("target", list(Target))
def test_each_target_plans_its_defaults_and_all_that_its_row_offers(target, recipe):
    row = TARGETS[target]
    plan = plan_export(recipe, target, ExportOptions())
    assert (plan.opset, plan.minimum_os) == (row.default_opset, row.default_minimum_os)
    assert plan.input_shapes == ((1, 3, 224, 224),)
    assert plan.passes[:2] == ("remove_no_ops", "drop_unused_outputs")
    folders = {plan.folder()}
    choices = [
        *(ExportOptions(precision=one) for one in precisions_of(target) if one is not Precision.FP32),
        *(ExportOptions(input_kind=one) for one in row.input_kinds if one is not InputKind.TENSOR),
        *(ExportOptions(output_kind=one) for one in row.output_kinds if one is not OutputKind.LOGITS),
        *(ExportOptions(layout=one) for one in row.layouts if one is not Layout.NCHW),
        *(ExportOptions(opset=one) for one in row.opsets if one != row.default_opset),
        *(ExportOptions(minimum_os=one) for one in row.minimum_os if one != row.default_minimum_os),
    ]
    for options in choices:
        folders.add(plan_export(recipe, target, options).folder())
    assert len(folders) == len(choices) + 1


def test_the_plan_names_its_passes(recipe):
    assert "build_in_preprocessing" not in plan_export(recipe, Target.ONNX, ExportOptions()).passes
    image = plan_export(recipe, Target.TFLITE, ExportOptions(input_kind=InputKind.IMAGE))
    assert image.passes.index("build_in_preprocessing") < image.passes.index("keepdim_reductions")
    assert "prelu_on_vectors" in plan_export(recipe, Target.COREML, ExportOptions()).passes


def test_the_size_is_part_of_the_plan(recipe):
    small = plan_export(recipe.with_size(256, 192), Target.ONNX, ExportOptions())
    assert small.input_shapes == ((1, 3, 256, 192),)
    assert small.folder() != plan_export(recipe, Target.ONNX, ExportOptions()).folder()


@pytest.mark.parametrize(
    ("target", "options", "message", "expected"),
    [
        (Target.ONNX, ExportOptions(layout=Layout.NHWC), "--layout nhwc", "nchw"),
        (Target.COREML, ExportOptions(layout=Layout.NHWC), "--layout nhwc", "nchw"),
        (Target.ONNX, ExportOptions(opset=17), "--opset 17", "18, 19, 20, 21, 22"),
        (Target.COREML, ExportOptions(opset=18), "--opset 18", "does not apply to coreml"),
        (Target.TFLITE, ExportOptions(opset=18), "--opset 18", "does not apply to tflite"),
        (Target.ONNX, ExportOptions(minimum_os="iOS17"), "--minimum-os iOS17", "does not apply to onnx"),
        (Target.COREML, ExportOptions(minimum_os="iOS14"), "--minimum-os iOS14", "iOS15, iOS16"),
        (Target.COREML, ExportOptions(minimum_os="ios17"), "--minimum-os ios17", "iOS17"),
        (Target.COREAI, ExportOptions(minimum_os="iOS18"), "--minimum-os iOS18", "iOS27"),
        (Target.COREAI, ExportOptions(layout=Layout.NHWC), "--layout nhwc", "nchw"),
        (Target.COREAI, ExportOptions(opset=18), "--opset 18", "does not apply to coreai"),
    ],
)
def test_what_a_target_cannot_do_is_refused_with_what_it_can(target, options, message, expected, recipe):
    with pytest.raises(TargetError, match=message) as caught:
        plan_export(recipe, target, options)
    assert expected in (caught.value.expected or "")


def test_a_plan_without_an_opset_is_no_plan_for_onnx():
    check_plan(PLAN)
    with pytest.raises(TargetError, match="--opset None"):
        check_plan(replace(PLAN, opset=None))


def test_of_several_targets_each_gets_the_options_that_apply():
    asked = ExportOptions(opset=20, minimum_os="iOS17", precision=Precision.FP16)
    given = {target: options_for(target, asked, alone=False) for target in Target}
    assert {target: (one.opset, one.minimum_os) for target, one in given.items()} == {
        Target.ONNX: (20, None),
        Target.COREML: (None, "iOS17"),
        Target.TFLITE: (None, None),
        Target.COREAI: (None, None),
    }
    assert {one.precision for one in given.values()} == {Precision.FP16}
    assert options_for(Target.TFLITE, asked, alone=True) is asked


def test_a_minimum_os_goes_to_the_target_that_has_it():
    for asked, given in (("iOS27", {None, "iOS27"}), ("iOS16", {None, "iOS16"})):
        options = {target: options_for(target, ExportOptions(minimum_os=asked), alone=False) for target in Target}
        assert {one.minimum_os for one in options.values()} == given
        assert sum(one.minimum_os is not None for one in options.values()) == 1


def test_a_minimum_os_that_no_target_has_is_refused_by_each_that_asks(recipe):
    asked = ExportOptions(minimum_os="iOS99")
    for target in (Target.COREML, Target.COREAI):
        with pytest.raises(TargetError, match="--minimum-os iOS99"):
            plan_export(recipe, target, options_for(target, asked, alone=False))


@pytest.mark.parametrize("target", list(Target))
def test_each_target_has_its_parts_and_versions(target):
    row = TARGETS[target]
    assert row.target is target
    assert require(target) is row
    assert set(row.versions()) == set(row.packages.values())
    assert callable(part(target, "export").write)
    assert callable(part(target, "runtime").open_artifact)
    assert all(callable(rewrite) for rewrite in part(target, "lowering").PASSES)


def test_a_target_that_is_not_installed_says_the_command(monkeypatch):
    row = replace(TARGETS[Target.TFLITE], packages={"a_module_that_is_not_there": "some-distribution"})
    monkeypatch.setitem(TARGETS, Target.TFLITE, row)
    with pytest.raises(TargetError, match="some-distribution") as caught:
        require(Target.TFLITE)
    assert caught.value.next_step == "pip install 'deploykit[tflite]'"
    ready, skipped = installed_targets()
    assert ready == (Target.ONNX, Target.COREML, Target.COREAI)
    assert [one.target for one in skipped] == [Target.TFLITE]
    assert "some-distribution" in skipped[0].reason


@pytest.mark.parametrize("name", ["x.onnx", "x.MLPACKAGE", "a.b/x.tflite", "x.aimodel"])
def test_a_file_belongs_to_the_target_of_its_suffix(name):
    assert TARGETS[target_of(Path(name))].suffix == Path(name).suffix.lower()


@pytest.mark.parametrize("name", ["x.pt", "onnx", "x.onnx.data"])
def test_other_files_are_refused(name):
    with pytest.raises(TargetError, match="not one of the formats"):
        target_of(Path(name))


@pytest.mark.parametrize("target", list(Target))
@pytest.mark.parametrize("precision", list(Precision))
def test_every_cell_is_a_scheme_or_is_refused_with_its_reason_and_the_nearest(target, precision, recipe):
    known = scheme(target, precision)
    if precision in precisions_of(target):
        plan = plan_export(recipe, target, ExportOptions(precision=precision))
        assert (plan.quantization is None) == precision.is_float
        return
    with pytest.raises(TargetError) as caught:
        plan_export(recipe, target, ExportOptions(precision=precision))
    assert known.reason in str(caught.value)
    assert f"--precision {known.nearest}" in str(caught.value)
    assert known.nearest in precisions_of(target)


def test_integers_ask_for_a_system_that_takes_them(recipe):
    assert plan_export(recipe, Target.COREML, ExportOptions(precision=Precision.INT8)).minimum_os == "iOS17"
    check_scheme(Target.COREML, Precision.INT8, "iOS18")
    with pytest.raises(TargetError, match="iOS17 or newer"):
        plan_export(recipe, Target.COREML, ExportOptions(precision=Precision.INT8, minimum_os="iOS16"))


def test_a_float_plan_is_named_as_before_there_were_integers(recipe):
    plan = plan_export(recipe, Target.ONNX, ExportOptions())
    body = {key: value for key, value in to_json(plan).items() if key != "quantization"}
    assert plan.digest() == hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    assert plan_export(recipe, Target.ONNX, ExportOptions(precision=Precision.INT8)).digest() != plan.digest()
