"""Faults planted in Core AI assets by editing their programs: the module is named, and nothing else is accused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coreai._compiler.ir import DenseElementsAttr, InsertionPoint, Operation, RankedTensorType
from coreai.authoring import AIModelAsset
from fault_cases import (
    CHANGES,
    Case,
    assert_clean,
    assert_named,
    attributed,
    lowered,
    prepare,
    same_values,
    weight,
    write,
)
from lowered_values import distance, lowered_values, traced

from deploykit.attribution import Part
from deploykit.lowering import ExportOptions, plan_export
from deploykit.records import ExportPlan
from deploykit.targets.traced import Arithmetic, NotTracedError
from deploykit.vocab import Precision, Target

Edit = Callable[[Case, "Opened"], None]
_RESOURCE = re.compile(r'(resource_\d+): "0x[0-9A-F]{8}([0-9A-F]+)"')
_NAMED = re.compile(r"dense_resource<(resource_\d+)>")
_DTYPES = {"f32": np.float32, "f16": np.float16, "si32": np.int32, "ui32": np.uint32}


class Opened:
    """The program of an asset, to be changed and written as another."""

    def __init__(self, path: Path) -> None:
        self.program: Any = AIModelAsset.load(path).program
        module = self.program._module._mlir_module
        self.context = module.context
        self.graphs = {one.symbol_name: one for one in module.body.operations if one.operation.name == "coreai.graph"}
        # Large weights lie at the end of the program's text, each after four bytes that state its alignment.
        text = module.operation.get_asm(enable_debug_info=False)
        self.resources = {name: bytes.fromhex(digits) for name, digits in _RESOURCE.findall(text)}

    def operations(self, kind: str, graph: str = "main") -> list[Any]:
        """Return the operations of this kind, in order."""
        return [
            one.operation
            for one in self.graphs[graph].entry_block.operations
            if one.operation.name.removeprefix("coreai.").removeprefix("decomposable.") == kind
        ]

    def value(self, constant: Any) -> np.ndarray:
        """Return what a constant holds."""
        stored = constant.attributes["value"]
        named = _NAMED.match(str(stored)[:80])
        kind = RankedTensorType(constant.results[0].type)
        shape = [kind.get_dim_size(axis) for axis in range(kind.rank)]
        if named is None:
            return np.broadcast_to(np.array(stored), shape)
        return np.frombuffer(self.resources[named[1]], _DTYPES[str(kind.element_type)]).reshape(shape)

    def give(self, reader: Any, place: int, value: object) -> None:
        """Let ``reader`` read a constant of its own at ``place``, of the type that it reads there."""
        kind = reader.operands[place].type
        array = np.ascontiguousarray(value, _DTYPES[str(RankedTensorType(kind).element_type)])
        with self.context, reader.location:
            stored = DenseElementsAttr.get(array.reshape(RankedTensorType(kind).shape), type=kind)
            made = Operation.create("coreai.constant", [kind], attributes={"value": stored}, ip=InsertionPoint(reader))
        reader.operands[place] = made.results[0]

    def becomes(self, operation: Any, kind: str) -> None:
        """Put an operation of another ``kind`` in the place of ``operation``, with the same operands."""
        with self.context, operation.location:
            made = Operation.create(
                kind, [operation.results[0].type], list(operation.operands), ip=InsertionPoint(operation)
            )
        operation.results[0].replace_all_uses_with(made.results[0])
        operation.erase()


def weights_of(module: str, change: str, leaf: str = "weight", *, rewritten: bool = False) -> Edit:
    """Change the constant that holds a weight of ``module``, known by its values; ``rewritten``: as lowering has it."""

    def edit(case: Case, opened: Opened) -> None:
        plan = plan_export(case.network.recipe, Target.COREAI, ExportOptions())
        wanted = weight(lowered(case, plan) if rewritten else case, module, leaf)
        constants = {one.results[0]: opened.value(one) for one in opened.operations("constant")}
        (found,) = (result for result, value in constants.items() if same_values(value, wanted))
        changed = CHANGES[change](constants[found])
        for use in list(found.uses):
            opened.give(use.owner, use.operand_number, changed)

    return edit


def reads(kind: str, number: int, place: int, value: object, graph: str = "main") -> Edit:
    """Let the given operation of this kind read another constant at ``place``."""

    def edit(case: Case, opened: Opened) -> None:
        opened.give(opened.operations(kind, graph)[number], place, value)

    return edit


def both(*edits: Edit) -> Edit:
    """Plant several edits as one fault."""

    def edit(case: Case, opened: Opened) -> None:
        for one in edits:
            one(case, opened)

    return edit


def resized(number: int, factors: tuple[float, float]) -> Edit:
    """Let a resizing take these factors from its middle: ``position = (place + 0.5 - offset) / factor - 0.5``."""
    offsets = [0, 0, *((1 - factor) / 2 if factor != 2 else 0 for factor in factors)]
    return both(reads("interpolate", number, 2, [1, 1, *factors]), reads("interpolate", number, 3, offsets))


def other_kind(kind: str, number: int, becomes: str) -> Edit:
    """Turn the given operation of this kind into another one."""

    def edit(case: Case, opened: Opened) -> None:
        opened.becomes(opened.operations(kind)[number], becomes)

    return edit


def reversed_parts(case: Case, opened: Opened) -> None:
    """Exchange what the concatenation joins: the parts have as many channels."""
    (concat,) = opened.operations("concat")
    first, second = concat.operands[1], concat.operands[2]
    concat.operands[1], concat.operands[2] = second, first


FAULTS: dict[str, tuple[str, Edit]] = {
    "stem weight scaled": ("stem.0", weights_of("stem.0", "scaled")),
    "stem input channels swapped": ("stem.0", weights_of("stem.0", "inputs swapped")),
    "stem padding": ("stem.0", reads("pad", 0, 1, [0, 0, 0, 0, 2, 0, 2, 0])),
    "depthwise one weight": ("depthwise.0", weights_of("depthwise.0", "one weight")),
    "depthwise channels swapped": ("depthwise.0", weights_of("depthwise.0", "channels swapped")),
    "slope": ("slope", weights_of("slope", "scaled")),
    "pointwise one weight": ("pointwise.0", weights_of("pointwise.0", "one weight")),
    "residual bias shifted": ("residual.conv.0", weights_of("residual.conv.0", "shifted", "bias")),
    "residual slope": ("residual.slope", weights_of("residual.slope", "scaled")),
    "residual subtracted": ("residual", other_kind("broadcasting_add", 4, "coreai.decomposable.broadcasting_sub")),
    "dilated one weight": ("dilated.0", weights_of("dilated.0", "one weight")),
    "dilated dilation": (
        "dilated.0",
        both(reads("conv2d", 4, 3, [1, 2]), reads("pad", 3, 1, [0, 0, 0, 0, 1, 1, 2, 2])),
    ),
    "gate weight": ("gate.expand", weights_of("gate.expand", "scaled")),
    "gate activation": ("gate", other_kind("sigmoid", 0, "coreai.tanh")),
    "larger corners": ("larger", resized(0, (15 / 7, 23 / 11))),
    "aligned corners": ("aligned", resized(1, (2, 2))),
    "join order": ("join", reversed_parts),
    "norm weight": ("norm", weights_of("norm", "one weight", rewritten=True)),
    "norm epsilon": ("norm", reads("broadcasting_add", 0, 1, 1e-2, "batch_norm_0")),
    "leaky slope": ("leaky", reads("broadcasting_mul", -1, 1, 0.11)),
    "transposed weight": ("transposed", weights_of("transposed", "scaled")),
    "transposed channels swapped": ("transposed", weights_of("transposed", "inputs swapped")),
    "head weight": ("head", weights_of("head", "one weight")),
    "head bias": ("head", weights_of("head", "shifted", "bias")),
}
# One fault a module, so that each of them can be told, and none beside another with nothing sound in between.
TOGETHER = {
    "stem.0": (
        *("stem weight scaled", "depthwise channels swapped", "pointwise one weight"),
        *("residual slope", "dilated dilation", "gate weight", "larger corners", "aligned corners", "norm epsilon"),
        "transposed channels swapped",
    ),
    "slope": (
        "slope",
        "residual bias shifted",
        "residual subtracted",
        "gate activation",
        "join order",
        "leaky slope",
        "head weight",
    ),
}


@pytest.fixture(scope="module")
def single(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.COREAI, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def half(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.COREAI, tmp_path_factory.mktemp("half"), ExportOptions(precision=Precision.FP16))


def planted(path: Path, folder: Path, case: Case, *edits: Edit) -> Path:
    """Return a copy of the asset at ``path`` in ``folder`` after ``edits``."""
    opened = Opened(path)
    for edit in edits:
        edit(case, opened)
    opened.program.save_asset(folder / path.name)
    return folder / path.name


def test_a_clean_asset_accuses_no_layer(case, single):
    path, plan = single
    found = attributed(case, path, plan)
    assert_clean(found)
    assert found.unmatched == 0
    # Nothing but Apple's runtime executes an asset, so that its kernels cannot be told from its converter.
    assert set(found.not_available) == {Part.CONVERTER.value, Part.KERNEL.value}
    assert all(row.converter_error is None and row.kernel_error is None for row in found.rows)
    assert all(row.precision_error is not None for row in found.rows)


@pytest.mark.parametrize("first", TOGETHER)
def test_many_faults_at_once_are_all_named(first, case, single, tmp_path):
    path, plan = single
    faults = dict(FAULTS[name] for name in TOGETHER[first])
    assert len(faults) == len(TOGETHER[first])
    found = attributed(case, planted(path, tmp_path, case, *faults.values()), plan)
    assert {row.module for row in found.accused} == set(faults)
    assert found.sentence.startswith(f"The error jumps first in {first}")


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_the_module_of_a_planted_fault_is_named(fault, case, single, tmp_path):
    module, edit = FAULTS[fault]
    path, plan = single
    found = attributed(case, planted(path, tmp_path, case, edit), plan)
    assert_named(found, module)
    assert found.accused[0].cause is None


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_the_module_of_a_planted_fault_is_named_in_half_precision(fault, case, half, tmp_path):
    module, edit = FAULTS[fault]
    path, plan = half
    assert_named(attributed(case, planted(path, tmp_path, case, edit), plan), module)


@pytest.mark.full
def test_a_clean_half_precision_asset_accuses_no_layer(case, half):
    path, plan = half
    assert_clean(attributed(case, path, plan))


def test_every_value_is_one_of_the_lowered_graph_under_its_name(case, single):
    path, plan = single
    expected = lowered_values(case, plan)
    trace = traced(case, path, plan)
    assert trace.note.endswith("bit by bit")
    stands = {value.origins[0]: value for value in trace.values if value.origins}
    assert stands.keys() >= expected.keys()
    assert {name for name, value in expected.items() if distance(stands[name], value) > 1e-5} == set()
    known = {"photo"}
    for value in trace.values:
        assert set(value.reads) <= known
        assert value.reads
        known.add(value.name)
    assert [value.name for value in trace.values if value.output == "scores"] == [trace.values[-1].name]


def test_there_is_no_reference_executor(case, single):
    path, plan = single
    with pytest.raises(NotTracedError, match="no reference executor"):
        traced(case, path, plan, Arithmetic.REFERENCE)


@pytest.mark.full
@pytest.mark.parametrize("name", ["sinet", "rcrnet"])
def test_values_of_whole_networks_are_those_of_the_lowered_graph(name, tmp_path):
    case = prepare(name)
    path, plan = write(case, Target.COREAI, tmp_path)
    expected = lowered_values(case, plan)
    stands = {value.origins[0]: value for value in traced(case, path, plan).values if value.origins}
    found = [distance(stands[name], value) for name, value in expected.items() if name in stands]
    assert len(found) > 0.9 * len(expected)
    assert max(found) <= 1e-5
    assert_clean(attributed(case, path, plan))
