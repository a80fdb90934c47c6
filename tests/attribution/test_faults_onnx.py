"""Faults planted in ONNX files by editing them: the module is named, and nothing else is accused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fault_cases import (
    CHANGES,
    Case,
    assert_clean,
    assert_named,
    attributed,
    same_values,
    weight,
    write,
)
from onnx import helper, numpy_helper

from deploykit.attribution import Part
from deploykit.chatter import contained
from deploykit.graph.capture import weights
from deploykit.lowering import ExportOptions
from deploykit.records import ExportPlan
from deploykit.vocab import InputKind, Precision, Target

Graph = onnx.GraphProto
Edit = Callable[[Case, Graph], None]


def weights_of(module: str, change: str, leaf: str = "weight") -> Edit:
    """Change the constant that holds a weight of ``module``, known by its values."""

    def edit(case: Case, graph: Graph) -> None:
        wanted = weight(case, module, leaf)
        (found,) = (i for i in graph.initializer if same_values(numpy_helper.to_array(i), wanted))
        found.CopyFrom(
            numpy_helper.from_array(np.ascontiguousarray(CHANGES[change](numpy_helper.to_array(found))), found.name)
        )

    return edit


def attribute_of(operation: str, name: str, value: object, number: int = 0) -> Edit:
    """Set an attribute of the given node of this kind."""

    def edit(case: Case, graph: Graph) -> None:
        node = [node for node in graph.node if node.op_type == operation][number]
        kept = [item for item in node.attribute if item.name != name]
        assert len(kept) < len(node.attribute) or name in ("count_include_pad",), (operation, name)
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    return edit


def reversed_inputs(operation: str) -> Edit:
    """Exchange the inputs of the only node of this kind."""

    def edit(case: Case, graph: Graph) -> None:
        (node,) = (node for node in graph.node if node.op_type == operation)
        names = list(reversed(node.input))
        # The parts have as many channels, so that the file stays sound.
        del node.input[:]
        node.input.extend(names)

    return edit


def scaled_residual(case: Case, graph: Graph) -> None:
    """Scale the straight branch of the residual sum."""
    # Two sums before it are those of activations.
    place, node = [(place, node) for place, node in enumerate(graph.node) if node.op_type == "Add"][2]
    half = next(v.type.tensor_type.elem_type for v in graph.value_info if v.name == node.input[0])
    kind = np.float16 if half == onnx.TensorProto.FLOAT16 else np.float32
    graph.initializer.append(numpy_helper.from_array(np.array(0.9, kind), "planted"))
    graph.node.insert(place, helper.make_node("Mul", [node.input[0], "planted"], ["planted_product"]))
    graph.node[place + 1].input[0] = "planted_product"


FAULTS: dict[str, tuple[str, Edit]] = {
    "stem weight scaled": ("stem.0", weights_of("stem.0", "scaled")),
    "stem input channels swapped": ("stem.0", weights_of("stem.0", "inputs swapped")),
    "depthwise one weight": ("depthwise.0", weights_of("depthwise.0", "one weight")),
    "depthwise channels swapped": ("depthwise.0", weights_of("depthwise.0", "channels swapped")),
    "pointwise one weight": ("pointwise.0", weights_of("pointwise.0", "one weight")),
    "residual bias shifted": ("residual.conv.0", weights_of("residual.conv.0", "shifted", "bias")),
    "residual slope": ("residual.slope", weights_of("residual.slope", "scaled")),
    "residual scaled": ("residual", scaled_residual),
    "dilated one weight": ("dilated.0", weights_of("dilated.0", "one weight")),
    "dilated padding": ("dilated.0", attribute_of("Conv", "pads", [4, 2, 0, 2], 4)),
    "average counts padding": ("average", attribute_of("AveragePool", "count_include_pad", 1)),
    "gate weight": ("gate.expand", weights_of("gate.expand", "scaled")),
    "larger corners": ("larger", attribute_of("Resize", "coordinate_transformation_mode", "align_corners", 0)),
    "aligned corners": ("aligned", attribute_of("Resize", "coordinate_transformation_mode", "half_pixel", 1)),
    "join order": ("join", reversed_inputs("Concat")),
    "norm epsilon": ("norm", attribute_of("BatchNormalization", "epsilon", 1e-2)),
    "leaky slope": ("leaky", attribute_of("LeakyRelu", "alpha", 0.11)),
    "transposed weight": ("transposed", weights_of("transposed", "scaled")),
    "transposed channels swapped": ("transposed", weights_of("transposed", "inputs swapped")),
    "head weight": ("head", weights_of("head", "one weight")),
    "head bias": ("head", weights_of("head", "shifted", "bias")),
}


@pytest.fixture
def single(onnx_file: tuple[Path, ExportPlan]) -> tuple[Path, ExportPlan]:
    return onnx_file


@pytest.fixture(scope="module")
def half(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.ONNX, tmp_path_factory.mktemp("half"), ExportOptions(precision=Precision.FP16))


def planted(path: Path, folder: Path, case: Case, *edits: Edit) -> Path:
    """Return a copy of the file at ``path`` in ``folder`` after ``edits``."""
    model = onnx.load(str(path))
    for edit in edits:
        edit(case, model.graph)
    copy = folder / path.name
    copy.write_bytes(model.SerializeToString())
    return copy


@pytest.mark.parametrize("fault", FAULTS)
def test_the_module_of_a_planted_fault_is_named(
    fault: str, case: Case, single: tuple[Path, ExportPlan], tmp_path: Path
) -> None:
    module, edit = FAULTS[fault]
    found = attributed(case, planted(single[0], tmp_path, case, edit), single[1])
    assert_named(found, module)
    assert found.accused[0].cause is Part.CONVERTER


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_the_module_of_a_planted_fault_is_named_in_half_precision(
    fault: str, case: Case, half: tuple[Path, ExportPlan], tmp_path: Path
) -> None:
    module, edit = FAULTS[fault]
    assert_named(attributed(case, planted(half[0], tmp_path, case, edit), half[1]), module)


def test_two_faults_are_both_named_and_the_first_is_in_the_sentence(
    case: Case, single: tuple[Path, ExportPlan], tmp_path: Path
) -> None:
    edits = (FAULTS["transposed channels swapped"][1], FAULTS["depthwise channels swapped"][1])
    found = attributed(case, planted(single[0], tmp_path, case, *edits), single[1])
    assert {row.module for row in found.accused} == {"transposed", "depthwise.0"}
    assert found.sentence.startswith("The error jumps first in depthwise.0")
    assert "(1 more accused)" in found.sentence


def test_an_overflow_is_accused_as_one_of_precision(case: Case, half: tuple[Path, ExportPlan], tmp_path: Path) -> None:
    loud = case.deploy.copy()
    for name, value in weights(loud).items():
        if name.startswith("dilated.0."):
            value.mul_(1e6)
    changed = replace(case, deploy=loud)
    path, plan = write(changed, Target.ONNX, tmp_path, ExportOptions(precision=Precision.FP16))
    found = attributed(changed, path, plan)
    assert [row.module for row in found.accused] == ["dilated.0"]
    assert found.accused[0].cause is Part.PRECISION
    assert "not finite" in found.sentence


def test_clean_files_accuse_no_layer(
    case: Case, single: tuple[Path, ExportPlan], half: tuple[Path, ExportPlan]
) -> None:
    for path, plan in (single, half):
        found = attributed(case, path, plan)
        assert_clean(found)
        # Of two slices in a row the file makes one, so that the first has no value in it.
        assert found.unmatched == 1
        assert found.ambiguous == 0
        assert not found.not_available
        for row in found.rows:
            assert row.cumulative_error is not None
            assert row.precision_error is not None
            assert row.converter_error is not None
            assert row.kernel_error is not None
            parts = row.precision_error + row.converter_error + row.kernel_error
            assert row.cumulative_error <= parts * (1 + 1e-9)


def test_a_file_that_takes_pixels_is_looked_into(case: Case, tmp_path: Path) -> None:
    path, plan = write(case, Target.ONNX, tmp_path, ExportOptions(input_kind=InputKind.IMAGE))
    assert_clean(attributed(case, path, plan))
    found = attributed(case, planted(path, tmp_path, case, FAULTS["gate weight"][1]))
    assert_named(found, "gate.expand")


def test_a_file_of_another_exporter_is_looked_into(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    with contained(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            case.network.module, (torch.zeros(1, 3, 32, 48),), str(path), dynamo=True, opset_version=18, verbose=False,
            external_data=False, input_names=["x"], output_names=["y"],
        )  # fmt: skip
    names = {"inputs": {"x": "photo"}, "outputs": {"y": "scores"}}
    assert_clean(attributed(case, path, **names))
    faulty = planted(path, tmp_path, case, FAULTS["larger corners"][1], FAULTS["head bias"][1])
    found = attributed(case, faulty, **names)
    assert {row.module for row in found.accused} == {"larger", "head"}
