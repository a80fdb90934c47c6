"""Reads the program of an ``.mlpackage`` from disk, on any operating system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from deploykit.errors import ArtifactError, TargetError
from deploykit.targets.coreml.interpreter.arguments import Argument, Arguments, Operation, Value
from deploykit.targets.coreml.interpreter.declared import (
    NUMPY_TYPES,
    ColorLayout,
    ProgramTensor,
    as_value,
    rounded,
)
from deploykit.targets.coreml.interpreter.table import OPERATIONS

# The channels and the type of the pixels.
_COLORS = {
    "RGB": (ColorLayout.RGB, "uint8"),
    "BGR": (ColorLayout.BGR, "uint8"),
    "GRAYSCALE": (ColorLayout.GRAYSCALE, "uint8"),
    "GRAYSCALE_FLOAT16": (ColorLayout.GRAYSCALE, "float16"),
}


@dataclass(frozen=True)
class Reference:
    """A value that is known only when the program runs."""

    name: str


Slot = Value | Reference


@dataclass(frozen=True)
class Step:
    """One operation that runs, with its constant arguments already in place."""

    operation: str
    function: Operation
    slots: Mapping[str, Slot | tuple[Slot, ...]]
    outputs: tuple[ProgramTensor, ...]

    def reads(self) -> Iterator[str]:
        """Yield the names of the values that the step needs."""
        for slot in self.slots.values():
            for single in slot if isinstance(slot, tuple) else (slot,):
                if isinstance(single, Reference):
                    yield single.name


@dataclass(frozen=True)
class Program:
    """A program ready to run. ``unknown`` names the operations that the interpreter does not know.

    With unknown operations ``steps`` is empty. ``inputs`` and ``outputs`` are as the caller gives and gets them,
    ``received`` and ``computed`` the same as the program has them: an image is there (1, channels, height, width).
    ``constants`` are the outputs that depend on no input.
    """

    inputs: tuple[ProgramTensor, ...]
    received: tuple[ProgramTensor, ...]
    outputs: tuple[ProgramTensor, ...]
    computed: tuple[ProgramTensor, ...]
    unknown: tuple[str, ...]
    steps: tuple[Step, ...] = ()
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)


def load_program(package: Path, half_rounding: bool = True) -> Program:
    """Return the program of ``package``, its weights decompressed and converted once.

    Without ``half_rounding`` every computed fp16 value counts as declared float32; inputs and stored constants keep
    their type. ArtifactError: the path is no readable package of an ML program. TargetError: coremltools is missing.
    """
    model = _open(package)
    spec = model.get_spec()
    if spec.WhichOneof("Type") != "mlProgram":
        raise ArtifactError(
            "only ML programs can be interpreted",
            where=str(package),
            found=f"a model of type {spec.WhichOneof('Type')}",
            expected="mlProgram",
            next_step="export again with convert_to='mlprogram'",
        )
    name = spec.description.defaultFunctionName or "main"
    function = spec.mlProgram.functions[name]
    block = function.block_specializations[function.opset]
    declared = {tensor.name: tensor for tensor in _declared(function, block)}
    received = tuple(declared[entry.name] for entry in function.inputs if entry.name in declared)
    if not half_rounding:
        declared = {name: _in_float(tensor) for name, tensor in declared.items()}
    colors = _image_colors(spec, name)
    unknown = tuple(sorted({kind for kind in _kinds(block) if kind not in OPERATIONS and kind != "const"}))
    computed = tuple(declared[output] for output in block.outputs if output in declared)
    program = Program(
        inputs=tuple(_outside(tensor, colors) for tensor in received),
        received=received,
        outputs=tuple(_outside(tensor, colors) for tensor in computed),
        computed=computed,
        unknown=unknown,
    )
    return program if unknown else _with_steps(program, _loaded(package, model, spec, name), declared)


def _open(package: Path) -> Any:
    try:
        import coremltools
    except ImportError as error:
        raise TargetError(
            "reading a Core ML program needs coremltools",
            next_step="pip install 'deploykit[coreml]'",
        ) from error
    if not (package / "Manifest.json").is_file():
        raise ArtifactError(
            "this is no Core ML package",
            where=str(package),
            found="a folder without Manifest.json" if package.is_dir() else "no folder",
            expected="an .mlpackage folder",
        )
    try:
        return coremltools.models.MLModel(str(package), skip_model_load=True)
    except Exception as error:  # coremltools and its C++ part raise plain Exception for a damaged package
        raise _damaged(package, error) from error


def _loaded(package: Path, model: Any, spec: Any, name: str) -> Any:
    from coremltools.converters.mil.frontend.milproto.load import load

    try:
        loaded = load(spec, spec.specificationVersion, model.weights_dir or "")
    except Exception as error:  # what the loader raises for a damaged weight file is not documented
        raise _damaged(package, error) from error
    return loaded.functions[name]


def _damaged(package: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        "the Core ML package cannot be read",
        where=str(package),
        found=f"{type(error).__name__}: {error}",
        next_step="export it again",
    )


def _declared(function: Any, block: Any) -> Iterator[ProgramTensor]:
    """Yield the declared type of every tensor that the program names."""
    entries = [*function.inputs, *(entry for operation in block.operations for entry in operation.outputs)]
    for entry in entries:
        if entry.type.WhichOneof("type") == "tensorType":
            tensor = entry.type.tensorType
            shape = tuple(
                int(axis.constant.size) if axis.WhichOneof("dimension") == "constant" else -1
                for axis in tensor.dimensions
            )
            kind = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
            dtype = NUMPY_TYPES.get(kind[tensor.dataType].name)
            if dtype is not None:
                yield ProgramTensor(entry.name, shape, dtype)


def _in_float(tensor: ProgramTensor) -> ProgramTensor:
    return replace(tensor, dtype="float32") if tensor.dtype == "float16" else tensor


def _kinds(block: Any) -> Iterator[str]:
    for operation in block.operations:
        yield operation.type
        for inner in operation.blocks:
            yield from _kinds(inner)


def _image_colors(spec: Any, name: str) -> dict[str, tuple[ColorLayout, str]]:
    description = next((function for function in spec.description.functions if function.name == name), spec.description)
    colors = {}
    for feature in (*description.input, *description.output):
        if feature.type.WhichOneof("Type") == "imageType":
            image = feature.type.imageType
            kind = type(image).DESCRIPTOR.fields_by_name["colorSpace"].enum_type.values_by_number
            colors[feature.name] = _COLORS[kind[image.colorSpace].name]
    return colors


def _outside(tensor: ProgramTensor, colors: Mapping[str, tuple[ColorLayout, str]]) -> ProgramTensor:
    """Return the input or output as the caller has it: an image has its channels last."""
    if tensor.name not in colors:
        return tensor
    color, dtype = colors[tensor.name]
    channels, height, width = tensor.shape[-3:]
    return ProgramTensor(tensor.name, (height, width, channels), dtype, color)


def _with_steps(program: Program, function: Any, declared: Mapping[str, ProgramTensor]) -> Program:
    """Return ``program`` with the operations of the loaded ``function``, everything constant evaluated."""
    # Keyed by identity: the loader adds constants for omitted parameters, whose names are not in the file.
    constants: dict[int, Value] = {}
    steps = []
    for operation in function.operations:
        if operation.op_type == "const":
            constants[id(operation.outputs[0])] = as_value(operation.outputs[0].val)
            continue
        slots = {
            name: _slot(variable, constants) for name, variable in operation.inputs.items() if variable is not None
        }
        outputs = tuple(declared[variable.name] for variable in operation.outputs)
        step = Step(operation.op_type, OPERATIONS[operation.op_type], slots, outputs)
        if step.operation.startswith("constexpr_"):
            for variable, result in zip(operation.outputs, evaluate(step, {}), strict=True):
                constants[id(variable)] = result
        else:
            steps.append(step)
    fixed = {
        variable.name: value
        for variable in function.outputs
        if isinstance(value := constants.get(id(variable)), torch.Tensor)
    }
    return replace(program, steps=tuple(steps), constants=fixed)


def _slot(variable: Any, constants: Mapping[int, Value]) -> Slot | tuple[Slot, ...]:
    if isinstance(variable, list | tuple):
        return tuple(_single(item, constants) for item in variable)
    return _single(variable, constants)


def _single(variable: Any, constants: Mapping[int, Value]) -> Slot:
    value = constants.get(id(variable))
    return Reference(variable.name) if value is None else value


def evaluate(step: Step, known: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Return the results of ``step`` in their declared types, given the values ``known`` by name."""

    def resolved(slot: Slot) -> Value:
        return known[slot.name] if isinstance(slot, Reference) else slot

    values: dict[str, Argument] = {
        name: tuple(resolved(single) for single in slot) if isinstance(slot, tuple) else resolved(slot)
        for name, slot in step.slots.items()
    }
    with torch.inference_mode():
        results = step.function(Arguments(values))
        if isinstance(results, torch.Tensor):
            results = (results,)
        stored = tuple(rounded(result, output.dtype) for result, output in zip(results, step.outputs, strict=True))
    for result, output in zip(stored, step.outputs, strict=True):
        if not output.accepts(tuple(result.shape)):
            raise RuntimeError(
                f"{step.operation} {output.name}: computed {tuple(result.shape)}, declared {output.shape}"
            )
    return stored
