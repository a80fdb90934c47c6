"""Every cell of the support matrix: exported as it states, and foreseen by preflight."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from deploykit.lowering import ExportOptions, lower, plan_export
from deploykit.pipeline import Exporter
from deploykit.preflight.constructs import CONSTRUCTS, GROUPS
from deploykit.preflight.look import look
from deploykit.preflight.matrix import AT_PRECISION, CELLS, SIMPLIFIED, cell, cells
from deploykit.preflight.outcome import Outcome, export_cell, prepared
from deploykit.preflight.records import Verdict
from deploykit.targets.table import TARGETS, part
from deploykit.vocab import FLOAT_PRECISIONS, Precision, Target

# One of each class for each target: exact, rewritten, refused (ONNX refuses none of the matrix).
PLAIN = {
    ("softmax", Target.ONNX),
    ("softmax", Target.COREAI),
    ("average pooling, divisor", Target.ONNX),
    ("grid_sample, reflection", Target.TFLITE),
    ("scaled_dot_product_attention", Target.COREML),
    ("constant over conv", Target.COREML),
    ("grid_sample, bicubic", Target.COREML),
}


def _marks(construct: str, target: Target, precision: Precision) -> list:
    plain = (construct, target) in PLAIN and precision is Precision.FP32
    return [] if plain else [pytest.mark.full]


def _cases() -> list:
    return [
        pytest.param(construct, target, precision, marks=_marks(construct, target, precision))
        for construct, target, precision, _ in cells()
    ]


@pytest.fixture(scope="module")
def exporter() -> Callable[[str], Exporter]:
    return cache(prepared)


# coremltools keeps its temporary folder until the error of a refused conversion is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("construct", "target", "precision"), _cases())
def test_a_cell_is_exported_as_it_states(exporter, construct, target, precision, tmp_path):
    outcome = export_cell(exporter(construct), construct, target, precision, tmp_path)
    assert outcome.departs(cell(construct, target, precision)) == ""
    left = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert bool(left) == (not outcome.refused)


@pytest.mark.full
@pytest.mark.parametrize("construct", CONSTRUCTS)
def test_preflight_foresees_every_cell(exporter, coverages, construct):
    check(exporter(construct), coverages, construct, list(Target))


@pytest.mark.parametrize(("construct", "target"), sorted(PLAIN))
def test_preflight_foresees_one_of_each_class(exporter, coverages, construct, target):
    check(exporter(construct), coverages, construct, [target])


def check(exporter: Exporter, coverages, construct: str, targets: list[Target]) -> None:
    recipe = exporter.network.recipe
    for target in targets:
        for precision in FLOAT_PRECISIONS:
            plan = plan_export(recipe, target, ExportOptions(precision=precision))
            graph = lower(exporter.training, recipe, plan)
            found = look(graph, plan, coverages(target))
            stated = cell(construct, target, precision)
            assert found.refused == bool(stated.refused), (construct, target, precision, found.findings)
            rewritten = {one.done.split()[1].rstrip(":") for one in found.findings if one.verdict is Verdict.REWRITTEN}
            own = {one.__name__ for one in part(target, "lowering").PASSES}
            if not stated.refused:
                assert rewritten & own == own & set(stated.passes), (construct, target)


@pytest.fixture(scope="module")
def coverages():
    return cache(lambda target: part(target, "coverage").read())


def test_the_tables_name_what_exists():
    assert set(CELLS) <= set(CONSTRUCTS)
    assert set(SIMPLIFIED) <= set(CONSTRUCTS)
    assert {construct for construct, _, _ in AT_PRECISION} <= set(CONSTRUCTS)
    assert sum(len(group) for group in GROUPS.values()) == len(CONSTRUCTS) >= 35
    for construct, target, precision, stated in cells():
        assert not (stated.passes and stated.refused)
        own = {one.__name__ for one in part(target, "lowering").PASSES} | {"fold_batch_norm", "merge_branches"}
        assert set(stated.passes) <= own, (construct, target, precision)


def test_the_plain_cells_hold_one_of_each_class_and_each_target():
    classes = {(cell(construct, target, Precision.FP32).stated) for construct, target in PLAIN}
    assert classes == {"exact", "rewritten", "refused"}
    assert {target for _, target in PLAIN} == set(TARGETS)


def test_an_outcome_that_departs_is_noticed():
    stated = cell("nearest resize, uneven", Target.TFLITE, Precision.FP32)
    outcome = Outcome("nearest resize, uneven", Target.TFLITE, Precision.FP32, ("nearest_by_index",), 1e-7)
    assert outcome.departs(stated) == ""
    assert "rewritten by ()" in Outcome("x", Target.TFLITE, Precision.FP32, (), 1e-7).departs(stated)
    assert "VerificationError" in Outcome("x", Target.TFLITE, Precision.FP32, refused="VerificationError").departs(
        stated
    )
    refused = cell("grid_sample, reflection", Target.TFLITE, Precision.FP32)
    assert "exported" in Outcome("x", Target.TFLITE, Precision.FP32, (), 1e-7).departs(refused)
