"""Lints on values made by hand, and inputs matched by name and shape, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from verification_cases import RECIPE, SECOND

from deploykit.errors import ArtifactError, UsageError
from deploykit.recipe import load_recipe
from deploykit.records import TensorRecord
from deploykit.verification.bind_inputs import bind_inputs
from deploykit.verify.contract import holds_probabilities, softmax
from deploykit.verify.lint import Classes, lint_output
from deploykit.vocab import InputKind, Layout, Precision

RANDOM = np.random.default_rng(3)
SCORES = [RANDOM.normal(size=(1, 2, 8, 8)) for _ in range(2)]
FILE = Path("net.onnx")


def rules(found, reference=SCORES, precision=Precision.FP32):
    return [(lint.rule, lint.fails) for lint in lint_output(found, reference, precision)]


def test_sound_values_have_no_lint():
    assert rules([one.astype(np.float32) for one in SCORES]) == []


@pytest.mark.parametrize(("value", "rule"), [(np.nan, "nan"), (np.inf, "infinity"), (-np.inf, "infinity")])
def test_one_value_that_is_not_finite_is_found(value, rule):
    damaged = [one.copy() for one in SCORES]
    damaged[1][0, 1, 3, 3] = value
    (lint,) = lint_output(damaged, SCORES, Precision.FP32)
    assert (lint.rule, lint.share, lint.fails) == (rule, 1 / 256, True)


def test_a_constant_is_found_unless_the_network_is_constant_too():
    flat = [np.full((1, 2, 8, 8), 0.25)] * 2
    assert rules(flat) == [("constant", True)]
    assert rules(flat, flat) == []
    same = [SCORES[0], SCORES[0].copy()]
    assert rules(same) == [("constant", True)]
    assert rules(same, same) == []


def test_values_stuck_at_one_end_are_found_unless_the_networks_are():
    clipped = [np.minimum(one, 1.0) for one in SCORES]
    assert rules(clipped) == [("saturated", False)]
    assert rules(clipped, clipped) == []
    relu = [np.maximum(one, 0) for one in SCORES]
    assert rules([one + 1e-7 for one in relu], relu) == []
    both = [np.clip(one, -1, 1) for one in SCORES]
    assert rules(both) == [("saturated", False)] * 2


def test_a_fifth_of_the_values_at_one_end_fails_and_what_eight_bits_round_to_it_does_not():
    cut = [np.maximum(one, -0.2) for one in SCORES]
    assert rules(cut) == [("saturated", True)]
    eight = [np.rint(one * 40) / 40 for one in SCORES]
    assert rules(eight, precision=Precision.INT8) == []
    two_levels = [np.where(one > 0, 3.0, -3.0) for one in SCORES]
    assert rules(two_levels, precision=Precision.INT8) == [("saturated", True)] * 2
    assert rules(two_levels, two_levels, Precision.INT8) == []


def test_a_spread_far_below_the_references_fails():
    assert rules([one / 20 for one in SCORES]) == [("vanished", True)]
    assert rules([one / 5 for one in SCORES]) == []
    assert rules([one / 20 for one in SCORES], [one / 20 for one in SCORES]) == []


def test_a_class_that_is_best_nowhere_fails_unless_it_is_in_the_reference_too():
    best = [one.argmax(1) for one in SCORES]
    none = [np.zeros_like(one) for one in best]
    few = [one.copy() for one in none]
    few[0][0, 0, 0] = 1

    def found(ours, theirs):
        return [lint.rule for lint in lint_output(SCORES, SCORES, Precision.INT8, Classes(ours, theirs))]

    assert found(best, best) == []
    assert found(none, best) == ["vanished"]
    assert found(few, best) == []
    assert found(none, none) == []
    assert found(none, few) == []


def test_what_half_precision_rounds_to_one_end_is_no_fault():
    sure = [softmax(20 * one) for one in SCORES]
    half = [one.astype(np.float16) for one in sure]
    assert rules(half, sure, Precision.FP16) == []
    assert rules([one.astype(np.float32) for one in half], sure, Precision.FP32) != []


def test_probabilities_are_told_from_scores():
    assert holds_probabilities([softmax(one) for one in SCORES])
    assert not holds_probabilities(SCORES)
    assert not holds_probabilities([np.full((1, 2, 4, 4), 0.4)])
    assert not holds_probabilities([np.full((1, 1, 4, 4), 1.0)])


@pytest.fixture
def recipe(tmp_path):
    def of(inputs: str = ""):
        path = tmp_path / "plain.toml"
        size = {"height": 48, "width": 64}
        path.write_text(RECIPE.format(factory="Plain", inputs=inputs.format(**size), outputs="", **size), "utf-8")
        return load_recipe(path)

    return of


def record(name, shape, dtype="float32", layout=Layout.NCHW):
    return TensorRecord(name, tuple(shape), dtype, layout)


@pytest.mark.parametrize(
    ("given", "layout", "shape", "kind"),
    [
        (record("x", (1, 3, 48, 64)), Layout.NCHW, (1, 3, 48, 64), InputKind.TENSOR),
        (record("x", (1, 48, 64, 3)), Layout.NHWC, (1, 48, 64, 3), InputKind.TENSOR),
        (record("x", (-1, -1, -1, 3)), Layout.NHWC, (1, 48, 64, 3), InputKind.TENSOR),
        (record("x", (-1, 3, 48, 64), "float16"), Layout.NCHW, (1, 3, 48, 64), InputKind.TENSOR),
        (record("x", (1, 48, 64, 3), "uint8"), Layout.NHWC, (1, 48, 64, 3), InputKind.IMAGE),
        (record("x", (1, 3, 48, 48), "uint8"), Layout.NCHW, (1, 3, 48, 48), InputKind.IMAGE),
    ],
)
def test_an_input_of_another_name_is_matched_by_its_shape(recipe, given, layout, shape, kind):
    (one,) = bind_inputs([given], recipe(), FILE)
    assert (one.input, one.file_input, one.layout, one.shape, one.kind) == ("photo", "x", layout, shape, kind)
    assert one.resized is (shape == (1, 3, 48, 48))


@pytest.mark.parametrize(
    "records",
    [
        [record("x", (1, 1, 48, 64))],
        [record("x", (2, 3, 48, 64))],
        [record("x", (1, 3, 48, 64), "int8")],
        [record("x", (1, 3, 48, 64)), record("y", (1, 3, 48, 64))],
        [],
    ],
)
def test_inputs_that_do_not_fit_are_refused(recipe, records):
    with pytest.raises(ArtifactError, match="does not take what the recipe gives"):
        bind_inputs(records, recipe(), FILE)


def test_two_inputs_of_one_shape_need_names_and_a_name_decides(recipe):
    two = recipe(SECOND)
    alike = [record("a", (1, 3, 48, 64)), record("b", (1, 3, 48, 64))]
    with pytest.raises(UsageError, match="not clear"):
        bind_inputs(alike, two, FILE)
    stated = bind_inputs(alike, two, FILE, names={"second": "a"})
    assert [(one.input, one.file_input) for one in stated] == [("photo", "b"), ("second", "a")]
    named = bind_inputs([record("second", (1, 3, 48, 64)), alike[0]], two, FILE)
    assert [(one.input, one.file_input) for one in named] == [("photo", "a"), ("second", "second")]
    told_apart = bind_inputs(
        [record("a", (1, 48, 64, 3)), record("b", (1, 3, 20, 20))], two, FILE, names={"photo": "b"}
    )
    assert [one.resized for one in told_apart] == [True, False]
    with pytest.raises(UsageError, match="given twice"):
        bind_inputs(alike, two, FILE, names={"photo": "a", "second": "a"})
