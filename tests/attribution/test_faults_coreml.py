"""Faults planted in Core ML packages by editing program and weights: the module is named, nothing else is accused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_cases import (
    CHANGES,
    Case,
    assert_clean,
    assert_named,
    attributed,
    copied,
    same_values,
    weight,
    write,
)

from deploykit.attribution import Part
from deploykit.lowering import ExportOptions
from deploykit.records import ExportPlan
from deploykit.vocab import InputKind, Precision, Target

pytest.importorskip("coremltools")

_MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
_WEIGHTS = Path("Data/com.apple.CoreML/weights/weight.bin")
# A blob's header: sentinel, type, size in bytes, where the values begin.
_HEADER = struct.Struct("<IIQQ")
_DTYPES = {1: np.float16, 2: np.float32}


@dataclass
class Package:
    """The program and the weights of a package, open for editing."""

    specification: Any
    weights: bytearray

    @property
    def operations(self) -> Any:
        """The operations of the main function."""
        (function,) = self.specification.mlProgram.functions.values()
        return function.block_specializations[function.opset].operations

    def of_kind(self, kind: str, number: int = 0) -> Any:
        """Return the given operation of this kind."""
        return [operation for operation in self.operations if operation.type == kind][number]

    def constant(self, name: str) -> Any:
        """Return the value of the constant ``name``."""
        return next(o for o in self.operations if o.outputs[0].name == name).attributes["val"]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the constants of floats, views of the weights or copies of immediate values."""
        return {
            operation.outputs[0].name: array
            for operation in self.operations
            if operation.type == "const" and (array := self._array(operation)) is not None
        }

    def _array(self, operation: Any) -> np.ndarray | None:
        value, shape = (
            operation.attributes["val"],
            [int(axis.constant.size) for axis in operation.outputs[0].type.tensorType.dimensions],
        )
        if value.WhichOneof("value") == "blobFileValue":
            _, kind, size, start = _HEADER.unpack_from(self.weights, value.blobFileValue.offset)
            dtype = np.dtype(_DTYPES[kind])
            return np.frombuffer(self.weights, dtype, size // dtype.itemsize, start).reshape(shape)
        tensor = value.immediateValue.tensor
        if tensor.WhichOneof("value") == "floats":
            return np.array(tensor.floats.values, np.float32).reshape(shape)
        if tensor.WhichOneof("value") == "bytes":
            return np.frombuffer(tensor.bytes.values, np.float16).reshape(shape)
        return None

    def put(self, name: str, array: np.ndarray) -> None:
        """Write ``array`` over the constant ``name``."""
        value = self.constant(name)
        if value.WhichOneof("value") == "blobFileValue":
            _, _, size, start = _HEADER.unpack_from(self.weights, value.blobFileValue.offset)
            assert array.nbytes == size
            self.weights[start : start + size] = array.tobytes()
        elif value.immediateValue.tensor.WhichOneof("value") == "floats":
            value.immediateValue.tensor.floats.values[:] = array.ravel().tolist()
        else:
            value.immediateValue.tensor.bytes.values = array.astype(np.float16).tobytes()


Edit = Callable[[Case, Package], None]


def edited(path: Path, case: Case, edit: Edit) -> Path:
    """Return ``path`` after ``edit``."""
    import coremltools

    specification = coremltools.proto.Model_pb2.Model()
    specification.ParseFromString((path / _MODEL).read_bytes())
    package = Package(specification, bytearray((path / _WEIGHTS).read_bytes()))
    edit(case, package)
    (path / _MODEL).write_bytes(specification.SerializeToString())
    (path / _WEIGHTS).write_bytes(package.weights)
    return path


def weights_of(module: str, change: str, leaf: str = "weight") -> Edit:
    """Change the constant that holds a weight of ``module``, known by its values."""

    def edit(case: Case, package: Package) -> None:
        wanted = weight(case, module, leaf)
        ((name, array),) = (item for item in package.arrays().items() if same_values(item[1], wanted))
        package.put(name, np.ascontiguousarray(CHANGES[change](array.copy())))

    return edit


def argument_of(kind: str, name: str, values: list[Any], number: int = 0) -> Edit:
    """Write ``values`` over a constant argument of the given operation of this kind."""

    def edit(case: Case, package: Package) -> None:
        constant = package.of_kind(kind, number).inputs[name].arguments[0].name
        tensor = package.constant(constant).immediateValue.tensor
        if tensor.WhichOneof("value") == "bytes":
            tensor.bytes.values = np.array(values, np.float16).tobytes()
        else:
            getattr(tensor, tensor.WhichOneof("value")).values[:] = values

    return edit


def reversed_parts(case: Case, package: Package) -> None:
    """Exchange what the concatenation joins: the parts have as many channels."""
    parts = package.of_kind("concat").inputs["values"].arguments
    first, second = (part.name for part in parts)
    parts[0].name, parts[1].name = second, first


def scaled_residual(case: Case, package: Package) -> None:
    """Scale the straight branch of the residual sum."""
    import coremltools

    operations = package.operations
    place = next(place for place, operation in enumerate(operations) if operation.type == "add")
    product = coremltools.proto.MIL_pb2.Operation()
    product.CopyFrom(next(operation for operation in operations if operation.type == "mul"))
    product.outputs[0].name = product.attributes["name"].immediateValue.tensor.strings.values[0] = "planted"
    product.outputs[0].type.CopyFrom(operations[place].outputs[0].type)
    product.inputs["x"].arguments[0].name = operations[place].inputs["x"].arguments[0].name
    factor = coremltools.proto.MIL_pb2.Value()
    tensor = factor.type.tensorType
    half = product.outputs[0].type.tensorType.dataType == coremltools.proto.MIL_pb2.FLOAT16
    tensor.dataType = product.outputs[0].type.tensorType.dataType
    if half:
        factor.immediateValue.tensor.bytes.values = np.array(0.9, np.float16).tobytes()
    else:
        factor.immediateValue.tensor.floats.values[:] = [0.9]
    product.inputs["y"].arguments[0].value.CopyFrom(factor)
    operations[place].inputs["x"].arguments[0].name = "planted"
    operations.insert(place, product)


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
    "dilated padding": ("dilated.0", argument_of("conv", "pad", [4, 0, 2, 2], 4)),
    "average counts padding": ("average", argument_of("avg_pool", "exclude_padding_from_average", [False])),
    "gate weight": ("gate.expand", weights_of("gate.expand", "scaled")),
    "larger corners": ("larger", argument_of("upsample_bilinear", "align_corners", [True], 0)),
    "aligned corners": ("aligned", argument_of("upsample_bilinear", "align_corners", [False], 1)),
    "join order": ("join", reversed_parts),
    "norm epsilon": ("norm", argument_of("batch_norm", "epsilon", [1e-2])),
    "leaky slope": ("leaky", argument_of("leaky_relu", "alpha", [0.11])),
    "transposed weight": ("transposed", weights_of("transposed", "scaled")),
    "transposed channels swapped": ("transposed", weights_of("transposed", "inputs swapped")),
    "head weight": ("head", weights_of("head", "one weight")),
    "head bias": ("head", weights_of("head", "shifted", "bias")),
}

# One fault of each kind of edit; what they do to a module is the same in every format, and all of it is run for ONNX.
PLAIN = (
    "stem weight scaled",
    "residual bias shifted",
    "residual scaled",
    "dilated padding",
    "average counts padding",
    "larger corners",
    "join order",
    "norm epsilon",
    "transposed channels swapped",
)


@pytest.fixture(scope="module")
def single(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.COREML, tmp_path_factory.mktemp("single"))


@pytest.fixture(scope="module")
def half(case: Case, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportPlan]:
    return write(case, Target.COREML, tmp_path_factory.mktemp("half"), ExportOptions(precision=Precision.FP16))


@pytest.mark.parametrize(
    "fault", [fault if fault in PLAIN else pytest.param(fault, marks=pytest.mark.full) for fault in FAULTS]
)
def test_the_module_of_a_planted_fault_is_named(
    fault: str, case: Case, single: tuple[Path, ExportPlan], tmp_path: Path
) -> None:
    module, edit = FAULTS[fault]
    found = attributed(case, edited(copied(single[0], tmp_path), case, edit), single[1])
    assert_named(found, module)
    assert found.accused[0].cause is Part.CONVERTER


@pytest.mark.full
@pytest.mark.parametrize("fault", FAULTS)
def test_the_module_of_a_planted_fault_is_named_in_half_precision(
    fault: str, case: Case, half: tuple[Path, ExportPlan], tmp_path: Path
) -> None:
    module, edit = FAULTS[fault]
    assert_named(attributed(case, edited(copied(half[0], tmp_path), case, edit), half[1]), module)


def test_clean_packages_accuse_no_layer(
    case: Case, single: tuple[Path, ExportPlan], half: tuple[Path, ExportPlan]
) -> None:
    for path, plan in (single, half):
        found = attributed(case, path, plan)
        assert_clean(found)
        assert found.unmatched == 0
        assert found.ambiguous == 0
        assert "Core ML returns a program's outputs alone" in found.not_available["kernel"]
        assert all(row.kernel_error is None and row.converter_error is not None for row in found.rows)


def test_a_package_that_takes_pixels_is_looked_into_without_its_plan(case: Case, tmp_path: Path) -> None:
    options = ExportOptions(input_kind=InputKind.IMAGE, precision=Precision.FP16)
    path, _ = write(case, Target.COREML, tmp_path, options)
    assert_clean(attributed(case, path, precision=Precision.FP16))
    faulty = edited(copied(path, tmp_path / "faulty"), case, FAULTS["average counts padding"][1])
    assert_named(attributed(case, faulty, precision=Precision.FP16), "average")
