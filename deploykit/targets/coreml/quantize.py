"""Write the integers of a quantized file into a Core ML program, and show the activations of its float file."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.backend.mil import helper
from coremltools.proto import MIL_pb2

from deploykit.errors import TargetError
from deploykit.targets.base import Array
from deploykit.targets.coreml.compression import compress, weight_of
from deploykit.targets.coreml.interpreter import MilInterpreter
from deploykit.targets.coreml.program_file import ProgramFile, float_dtype, tensor_shape
from deploykit.targets.integers import ActivationIntegers, int8_activations
from deploykit.targets.quantized import KEPT, NO_GAIN, SHARED, Activation, LeftInFloat, QuantizedFile, Range
from deploykit.targets.schemes import default_minimum_os, require_integers
from deploykit.vocab import Precision, Target

# The float file that integers are put into: what is not quantized runs in half precision on these devices.
FLOAT_PRECISION = Precision.FP16
# What Core ML multiplies integers in. Other operations would only round once more.
_INTEGER_OPERATIONS = ("conv", "conv_transpose", "linear", "matmul")
# The opset of a program's oldest system is called CoreML5 for iOS 15, CoreML6 for iOS 16 and so on.
_SYSTEM_OF_OPSET = 10
_HALF = "_cast_fp16"


def activations(path: Path, precision: Precision) -> tuple[Activation, ...]:
    """Return the floating-point activations of the package, its inputs first, in the order of execution.

    What an operation computes needs no range of its own where no operation that works in integers reads it.
    """
    program = ProgramFile(path)
    found = [
        Activation(entry.name, "", (), tensor_shape(entry.type), False, (entry.name,), False, False)
        for entry in program.inputs
        if float_dtype(entry.type)
    ]
    known = {item.name for item in found}
    constants = _constants(program)
    for operation in program.operations:
        if _is_constant(operation):
            continue
        reads = tuple(dict.fromkeys(name for name in _reads(operation) if name in known))
        weight = weight_of(operation, constants)
        for output in operation.outputs:
            if float_dtype(output.type):
                known.add(output.name)
                found.append(
                    Activation(
                        name=output.name,
                        operation=operation.type,
                        reads=reads,
                        shape=tensor_shape(output.type),
                        channels_last=False,
                        origins=(output.name.removesuffix(_HALF),),
                        takes_weights=weight is not None,
                        quantizes=precision.quantizes_activations and operation.type in _INTEGER_OPERATIONS,
                    )
                )
    return tuple(found)


def observe(path: Path, inputs: Iterable[Mapping[str, Array]], names: Collection[str]) -> Iterator[dict[str, Array]]:
    """Yield, for each set of inputs (as ``Runtime.run`` takes them), name → array of the activations ``names``.

    The package is read once, and every other value is released as soon as nothing needs it any more.
    """
    interpreter = MilInterpreter(path)
    images = {item.name for item in interpreter.inputs if item.color is not None}
    wanted = set(names)
    for given in inputs:
        pixels: dict[str, Any] = {name: array[0] if name in images else array for name, array in given.items()}
        found = interpreter.run(pixels, keep=wanted)
        yield {name: found[name] for name in names}


def quantize(
    path: Path,
    output: Path,
    precision: Precision,
    *,
    ranges: Mapping[str, Range],
    kept: Collection[str] = (),
    kept_weights: Collection[str] = (),
) -> QuantizedFile:
    """Write the package ``path`` as ``output`` with the integers of ``precision``; ``path`` stays as it is.

    Weights are int8 with one scale for each output channel, or point into one palette. At ``int8`` every activation
    that a convolution, a linear layer or a matrix product reads passes through int8 once, whoever reads it; what the
    operation adds up stays floating point until the next one reads it. The numbers that stay floating point keep
    their dtype: float16 where the file is an fp16 one, as the Neural Engine needs it.

    Raises TargetError where the program is made for systems too old for ``precision``, Core ML has no such integers,
    or an activation has no finite range.
    """
    program = ProgramFile(path)
    _require_system(path, program, precision)
    before = program.stored_bytes()
    whole, left = _compress_weights(program, precision, set(kept_weights))
    weights = sum(operation.type.startswith("constexpr_") for operation in program.operations)
    names: list[str] = []
    if precision.quantizes_activations:
        left |= {name: KEPT for name in kept if name not in left}
        names = _round_activations(path, program, ranges, set(kept) | whole)
    program.save(output)
    order = [entry.name for operation in program.operations for entry in operation.outputs]
    return QuantizedFile(
        activations=len(names),
        weights=weights,
        weight_bytes=program.stored_bytes(),
        float_weight_bytes=before,
        left_in_float=tuple(LeftInFloat(name, left[name]) for name in order if name in left),
    )


def _require_system(path: Path, program: ProgramFile, precision: Precision) -> None:
    require_integers(Target.COREML, precision, path)
    oldest = str(default_minimum_os(Target.COREML, precision))
    system = program.opset + _SYSTEM_OF_OPSET
    if system < int(oldest.removeprefix("iOS")):
        raise TargetError(
            f"The precision {precision} needs a newer system than the file is made for.",
            where=str(path),
            found=f"iOS{system}",
            expected=f"{oldest} or later",
            next_step=f"export with --minimum-os {oldest}",
        )


def _constants(program: ProgramFile) -> dict[str, Any]:
    return {operation.outputs[0].name: operation for operation in program.operations if operation.type == "const"}


def _reads(operation: Any) -> Iterator[str]:
    for argument in operation.inputs.values():
        yield from (one.name for one in argument.arguments if one.name)


def _compress_weights(program: ProgramFile, precision: Precision, kept: set[str]) -> tuple[set[str], dict[str, str]]:
    """Compress what gains; return the operations whose weights stay floating point, and with it why."""
    constants = _constants(program)
    users: dict[str, list[tuple[str, int]]] = {}
    others: set[str] = set(program.outputs)
    for operation in program.operations:
        weight = weight_of(operation, constants)
        if weight is not None:
            users.setdefault(weight.name, []).append((operation.outputs[0].name, weight.axis))
        others.update(name for name in _reads(operation) if weight is None or name != weight.name)
    left: dict[str, str] = {}
    for name, readers in users.items():
        asked = {reader for reader, _ in readers} & kept
        array = program.array(constants[name])
        axes = {axis for _, axis in readers}
        if asked or name in others or len(axes) > 1 or array is None:
            left |= {reader: KEPT if reader in asked else SHARED for reader, _ in readers}
        elif not compress(program, constants[name], array, axes.pop(), precision):
            left |= {reader: NO_GAIN for reader, _ in readers}
    return set(left), left


def _round_activations(path: Path, program: ProgramFile, ranges: Mapping[str, Range], kept: set[str]) -> list[str]:
    """Let every operation that works in integers read its activations through int8; return their names."""
    dtypes = {entry.name: dtype for entry in _entries(program) if (dtype := float_dtype(entry.type))}
    constants = {operation.outputs[0].name for operation in program.operations if _is_constant(operation)}
    integer = [
        operation
        for operation in program.operations
        if operation.type in _INTEGER_OPERATIONS and operation.outputs[0].name not in kept
    ]
    needed = dict.fromkeys(name for one in integer for name in _reads(one) if name in dtypes and name not in constants)
    integers = int8_activations(path, {name: dtypes[name] for name in needed}, ranges)
    taken = {entry.name for entry in _entries(program)}
    pairs = {name: _Pair(name, integers[name], dtypes[name], taken) for name in needed}
    for operation in integer:
        for argument in operation.inputs.values():
            for one in argument.arguments:
                if one.name in pairs:
                    one.name = pairs[one.name].result
    entries = {entry.name: entry for entry in _entries(program)}
    rearranged: list[Any] = []
    for name in (entry.name for entry in program.inputs):
        rearranged += pairs[name].operations(entries[name]) if name in pairs else ()
    for operation in program.operations:
        rearranged.append(operation)
        for entry in operation.outputs:
            rearranged += pairs[entry.name].operations(entry) if entry.name in pairs else ()
    program.rearrange(rearranged)
    return list(needed)


def _is_constant(operation: Any) -> bool:
    return str(operation.type).startswith("const")


def _entries(program: ProgramFile) -> Iterator[Any]:
    yield from program.inputs
    for operation in program.operations:
        yield from operation.outputs


class _Pair:
    """``quantize`` and ``dequantize`` of one activation, with their constants; ``result`` is what readers read."""

    def __init__(self, name: str, stored: ActivationIntegers, dtype: str, taken: set[str]) -> None:
        self._integers = _free(f"{name}_quantized", taken)
        self.result = _free(f"{name}_dequantized", taken)
        self._constants = {
            "scale": (_free(f"{name}_scale", taken), helper.create_scalar_value(np.dtype(dtype).type(stored.scale))),
            "zero_point": (
                _free(f"{name}_zero_point", taken),
                helper.create_scalar_value(np.int8(stored.zero_point)),
            ),
            "output_dtype": (_free(f"{name}_output_dtype", taken), helper.create_scalar_value("int8")),
        }
        self._name = name

    def operations(self, entry: Any) -> list[Any]:
        """Return the constants, the two operations, in order; ``entry`` declares the activation."""
        constants = [_constant(name, value) for name, value in self._constants.values()]
        whole = MIL_pb2.NamedValueType(name=self._integers, type=entry.type)
        whole.type.tensorType.dataType = MIL_pb2.INT8
        real = MIL_pb2.NamedValueType(name=self.result, type=entry.type)
        named = {argument: name for argument, (name, _) in self._constants.items()}
        back = {argument: name for argument, name in named.items() if argument != "output_dtype"}
        return [
            *constants,
            _operation("quantize", whole, {"input": self._name, **named}),
            _operation("dequantize", real, {"input": self._integers, **back}),
        ]


def _constant(name: str, value: Any) -> Any:
    made = MIL_pb2.Operation(type="const", outputs=[MIL_pb2.NamedValueType(name=name, type=value.type)])
    made.attributes["name"].CopyFrom(helper.create_scalar_value(name))
    made.attributes["val"].CopyFrom(value)
    return made


def _operation(kind: str, output: Any, reads: Mapping[str, str]) -> Any:
    made = MIL_pb2.Operation(type=kind, outputs=[output])
    made.attributes["name"].CopyFrom(helper.create_scalar_value(output.name))
    for argument, name in reads.items():
        made.inputs[argument].arguments.add().name = name
    return made


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name
