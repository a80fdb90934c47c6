"""Faults planted in TFLite files by editing their flatbuffers: the module is named, and nothing else is accused."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from fault_cases import (
    CHANGES,
    Case,
    assert_clean,
    assert_named,
    attributed,
    prepare,
    same_values,
    weight,
    write,
)
from lowered_values import distance, lowered_values, traced

from deploykit.attribution import Part
from deploykit.errors import ArtifactError
from deploykit.lowering import ExportOptions
from deploykit.records import ExportPlan
from deploykit.targets.traced import Arithmetic
from deploykit.vocab import Layout, Precision, Target

Edit = Callable[[Case, "Opened"], None]
Change = Callable[[np.ndarray], np.ndarray]
_FLOATS = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT32: np.int32,
}


class Opened:
    """A TFLite file as objects of its schema, to be changed and written back."""

    def __init__(self, path: Path) -> None:
        raw = path.read_bytes()
        self.model: Any = schema.ModelT.InitFromPackedBuf(bytearray(raw), 0)
        for buffer in self.model.buffers:
            if buffer.offset > 1:
                buffer.data = np.frombuffer(raw, np.uint8, buffer.size, buffer.offset)
                buffer.offset = buffer.size = 0
        self.graph: Any = self.model.subgraphs[0]

    def packed(self) -> bytes:
        """Return the bytes of the file as it is now."""
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())

    def operators(self, kind: str) -> list[Any]:
        """Return the operations of this kind, in order."""
        code = getattr(schema.BuiltinOperator, kind)
        return [one for one in self.graph.operators if self.model.operatorCodes[one.opcodeIndex].builtinCode == code]

    def value(self, index: int) -> np.ndarray | None:
        """Return the constant of a tensor, None for one that is computed."""
        tensor = self.graph.tensors[index]
        stored = self.model.buffers[tensor.buffer].data
        if stored is None or tensor.type not in _FLOATS:
            return None
        return np.frombuffer(bytes(np.asarray(stored, np.uint8)), _FLOATS[tensor.type]).reshape(tensor.shape)

    def change(self, index: int, change: Change) -> None:
        """Give a tensor a constant of its own: others with the same values keep theirs."""
        changed = np.ascontiguousarray(change(self.value(index)))
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(changed.tobytes(), np.uint8)
        self.graph.tensors[index].buffer = len(self.model.buffers)
        self.model.buffers.append(buffer)

    def unshared(self, index: int) -> int:
        """Return a new tensor with the values of this one, for one operation alone to read."""
        self.graph.tensors.append(copy(self.graph.tensors[index]))
        return len(self.graph.tensors) - 1

    def becomes(self, operator: Any, kind: str) -> None:
        """Turn ``operator`` into another kind, without options."""
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        operator.opcodeIndex = len(self.model.operatorCodes)
        self.model.operatorCodes.append(code)
        operator.builtinOptions, operator.builtinOptionsType = None, schema.BuiltinOptions.NONE


def _swapped(axis: int) -> Change:
    """Return a change that exchanges the first two channels along ``axis``."""

    def change(array: np.ndarray) -> np.ndarray:
        order = np.arange(array.shape[axis])
        order[:2] = 1, 0
        return np.take(array, order, axis)

    return change


def weights_of(module: str, change: Change, leaf: str = "weight") -> Edit:
    """Change the constant that holds a weight of ``module``, known by its values."""

    def edit(case: Case, opened: Opened) -> None:
        wanted = weight(case, module, leaf)
        constants = ((index, opened.value(index)) for index in range(len(opened.graph.tensors)))
        (found,) = (i for i, constant in constants if constant is not None and same_values(constant, wanted))
        opened.change(found, change)

    return edit


def constant_of(kind: str, number: int, place: int, change: Change) -> Edit:
    """Change the constant that the given operation of this kind reads at ``place``."""

    def edit(case: Case, opened: Opened) -> None:
        inputs = opened.operators(kind)[number].inputs
        inputs[place] = opened.unshared(inputs[place])
        opened.change(inputs[place], change)

    return edit


def option_of(kind: str, number: int, **options: object) -> Edit:
    """Set options of the given operation of this kind."""

    def edit(case: Case, opened: Opened) -> None:
        found = opened.operators(kind)[number].builtinOptions
        assert any(getattr(found, name) != value for name, value in options.items())
        for name, value in options.items():
            setattr(found, name, value)

    return edit


def other_kind(kind: str, number: int, becomes: str) -> Edit:
    """Turn the given operation of this kind into another one."""

    def edit(case: Case, opened: Opened) -> None:
        opened.becomes(opened.operators(kind)[number], becomes)

    return edit


def reversed_inputs(kind: str) -> Edit:
    """Exchange the inputs of the only operation of this kind: both have as many channels."""

    def edit(case: Case, opened: Opened) -> None:
        (operator,) = opened.operators(kind)
        operator.inputs = operator.inputs[::-1].copy()

    return edit


def padded_before(array: np.ndarray) -> np.ndarray:
    """Return the paddings with all rows and columns before the image."""
    return np.stack([array.sum(1), np.zeros(len(array))], 1).astype(array.dtype)


FAULTS: dict[str, tuple[str, Edit]] = {
    "stem weight scaled": ("stem.0", weights_of("stem.0", CHANGES["scaled"])),
    "stem input channels swapped": ("stem.0", weights_of("stem.0", _swapped(-1))),
    "stem padding": ("stem.0", constant_of("PAD", 0, 1, padded_before)),
    "depthwise one weight": ("depthwise.0", weights_of("depthwise.0", CHANGES["one weight"])),
    "depthwise channels swapped": ("depthwise.0", weights_of("depthwise.0", _swapped(-1))),
    "pointwise one weight": ("pointwise.0", weights_of("pointwise.0", CHANGES["one weight"])),
    "residual bias shifted": ("residual.conv.0", weights_of("residual.conv.0", CHANGES["shifted"], "bias")),
    "residual slope": ("residual.slope", constant_of("PRELU", 1, 1, CHANGES["scaled"])),
    "residual subtracted": ("residual", other_kind("ADD", 0, "SUB")),
    "dilated one weight": ("dilated.0", weights_of("dilated.0", CHANGES["one weight"])),
    "dilated dilation": ("dilated.0", option_of("CONV_2D", 3, dilationHFactor=1)),
    "gate weight": ("gate.expand", weights_of("gate.expand", CHANGES["scaled"])),
    "gate activation": ("gate", other_kind("LOGISTIC", 0, "TANH")),
    "larger corners": ("larger", option_of("RESIZE_BILINEAR", 0, alignCorners=True, halfPixelCenters=False)),
    "aligned corners": ("aligned", option_of("RESIZE_BILINEAR", 1, alignCorners=False, halfPixelCenters=True)),
    "join order": ("join", reversed_inputs("CONCATENATION")),
    "norm weight": ("norm", constant_of("MUL", 1, 1, CHANGES["one weight"])),
    "leaky slope": ("leaky", option_of("LEAKY_RELU", 0, alpha=0.11)),
    "transposed weight": ("transposed", weights_of("transposed", CHANGES["scaled"])),
    "transposed channels swapped": ("transposed", weights_of("transposed", _swapped(0))),
    "head weight": ("head", weights_of("head", CHANGES["one weight"])),
    "head bias": ("head", weights_of("head", CHANGES["shifted"], "bias")),
}


# One fault of each kind of edit; what they do to a module is the same in every format, and all of it is run for ONNX.
PLAIN = (
    "stem weight scaled",
    "stem padding",
    "residual bias shifted",
    "residual subtracted",
    "dilated dilation",
    "larger corners",
    "join order",
    "norm weight",
    "transposed channels swapped",
)

PRECISIONS = pytest.mark.parametrize("precision", ["single", pytest.param("half", marks=pytest.mark.full)])


@pytest.fixture(scope="module")
def single(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.TFLITE, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def half(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.TFLITE, tmp_path_factory.mktemp("half"), ExportOptions(precision=Precision.FP16))


def planted(path: Path, folder: Path, case: Case, *edits: Edit) -> Path:
    """Return a copy of the file at ``path`` in ``folder`` after ``edits``."""
    opened = Opened(path)
    for edit in edits:
        edit(case, opened)
    copy = folder / path.name
    copy.write_bytes(opened.packed())
    return copy


@pytest.mark.parametrize(
    "fault", [fault if fault in PLAIN else pytest.param(fault, marks=pytest.mark.full) for fault in FAULTS]
)
def test_the_module_of_a_planted_fault_is_named(fault, case, single, tmp_path):
    module, edit = FAULTS[fault]
    path, plan = single
    found = attributed(case, planted(path, tmp_path, case, edit), plan)
    assert_named(found, module)
    assert found.accused[0].cause is Part.CONVERTER


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_the_module_of_a_planted_fault_is_named_in_half_precision(fault, case, half, tmp_path):
    module, edit = FAULTS[fault]
    path, plan = half
    assert_named(attributed(case, planted(path, tmp_path, case, edit), plan), module)


def test_two_faults_are_both_named_and_the_first_is_in_the_sentence(case, single, tmp_path):
    path, plan = single
    edits = (FAULTS["transposed channels swapped"][1], FAULTS["depthwise channels swapped"][1])
    found = attributed(case, planted(path, tmp_path, case, *edits), plan)
    assert {row.module for row in found.accused} == {"transposed", "depthwise.0"}
    assert found.sentence.startswith("The error jumps first in depthwise.0")


@PRECISIONS
def test_clean_files_accuse_no_layer(case, precision, request):
    found = attributed(case, *request.getfixturevalue(precision))
    assert_clean(found)
    assert not found.not_available
    for row in found.rows:
        assert row.converter_error is not None
        assert row.kernel_error is not None
        # Both executors compute in float32; an fp16 file holds its weights as halves.
        assert row.kernel_error < 1e-5


@pytest.mark.full
def test_a_file_with_its_channels_last_is_looked_into(case, tmp_path):
    path, plan = write(case, Target.TFLITE, tmp_path, ExportOptions(layout=Layout.NHWC))
    assert_clean(attributed(case, path, plan))
    module, edit = FAULTS["gate weight"]
    assert_named(attributed(case, planted(path, tmp_path, case, edit), plan), module)


def test_every_value_is_one_of_the_lowered_graph_under_its_name(case, single):
    path, plan = single
    expected = lowered_values(case, plan)
    trace = traced(case, path, plan)
    assert trace.note.endswith("bit by bit")
    stands = {name: [value for value in trace.values if name in value.origins] for name in expected}
    hidden = {n for n, own in stands.items() if all(distance(v, expected[n]) > 1e-5 for v in own)}
    # They are applied within the operation before, or with their neighbours, and have no value of their own any more.
    joined = {"permute_default", "permute_default_2", "reshape_default_1"}
    # A pixel shuffle is one operation of the file.
    shuffle = {"permute_default_1", "reshape_default"}
    assert hidden == {"conv2d", "conv2d_2", "conv2d_4", "conv2d_5", *joined, *shuffle}
    (output,) = (value for value in trace.values if value.output == "scores")
    assert distance(output, expected["add_1"]) <= 1e-5
    images = [value for value in trace.values if value.value.ndim == 4 and not joined.intersection(value.origins)]
    shuffled = {value.name for value in images if not value.channels_last} - {output.name}
    assert all(name.startswith(("permute", "reshape")) for name in shuffled), shuffled


@PRECISIONS
def test_reference_kernels_compute_the_same_values(case, precision, request):
    path, plan = request.getfixturevalue(precision)
    ours, theirs = (traced(case, path, plan, arithmetic) for arithmetic in Arithmetic)
    assert [value.name for value in ours.values] == [value.name for value in theirs.values]
    assert [value.reads for value in ours.values] == [value.reads for value in theirs.values]
    known = {"photo"}
    for one, other in zip(ours.values, theirs.values, strict=True):
        assert distance(replace(one, channels_last=False), other.value.astype(np.float64)) <= 2e-6
        assert set(one.reads) <= known
        known.add(one.name)


def test_a_damaged_file_is_refused(case, single, tmp_path):
    path, plan = single
    damaged = tmp_path / path.name
    damaged.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(ArtifactError):
        attributed(case, damaged, plan)


@pytest.mark.full
@pytest.mark.parametrize("name", ["sinet", "rcrnet"])
def test_values_of_whole_networks_are_those_of_the_lowered_graph(name, tmp_path):
    case = prepare(name)
    path, plan = write(case, Target.TFLITE, tmp_path)
    expected = lowered_values(case, plan)
    trace = traced(case, path, plan)
    fits = [
        any(distance(value, expected[name]) <= 1e-5 for name in value.origins if name in expected)
        for value in trace.values
    ]
    assert sum(fits) > 0.4 * len(fits)
    outputs = [value for value in trace.values if value.output is not None]
    assert outputs
    found = attributed(case, path, plan)
    assert_clean(found)
