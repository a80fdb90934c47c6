"""A TFLite file given integers: tensors with scales, and QUANTIZE and DEQUANTIZE where integers meet floats."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from deploykit.targets.integers import (
    BIAS_LIMIT,
    ActivationIntegers,
    activation_integers,
    bias_integers,
    require_finite_weight,
    weight_integers,
    weight_scales,
)
from deploykit.targets.quantized import Range
from deploykit.targets.tflite.flatbuffer import operator_code
from deploykit.targets.tflite.integer_kernels import KERNELS, Weights
from deploykit.targets.tflite.integer_plan import FloatFile, takes_weights

_TYPES = {"int8": schema.TensorType.INT8, "int16": schema.TensorType.INT16, "int32": schema.TensorType.INT32}
_TYPES |= {"int64": schema.TensorType.INT64, "float32": schema.TensorType.FLOAT32}


@dataclass(frozen=True)
class Bits:
    """The integers of activations: their dtype, whether zero is 0, and the dtype and limit of biases."""

    dtype: str
    symmetric: bool
    bias: str
    bias_limit: int

    def spread(self, span: Range) -> ActivationIntegers:
        """Return the integers of an activation of the range ``span``."""
        limits = np.iinfo(self.dtype)
        return activation_integers(span, int(limits.min), int(limits.max), symmetric=self.symmetric)

    def fixed(self, span: Range) -> ActivationIntegers:
        """Return the integers that kernels fix for values in 0 to 1 or -1 to 1: their scale is a power of two."""
        steps = 2 ** (np.iinfo(self.dtype).bits - (1 if self.symmetric or span.lowest < 0 else 0))
        return ActivationIntegers(1 / steps, 0 if self.symmetric or span.lowest < 0 else int(np.iinfo(self.dtype).min))


EIGHT = Bits("int8", symmetric=False, bias="int32", bias_limit=BIAS_LIMIT)
# 64 bits hold the sum; the kernel multiplies it by a number of 16 bits.
SIXTEEN = Bits("int16", symmetric=True, bias="int64", bias_limit=2**40)


class Rounding:
    """The file while it is given integers; ``finish`` leaves the model whole."""

    def __init__(self, file: FloatFile, bits: Bits, integers: Mapping[int, ActivationIntegers]) -> None:
        self._file, self._model, self._graph = file, file.model, file.graph
        self._bits, self._integers = bits, integers
        self._operators: list[Any] = []
        self._whole: set[int] = set()
        self._counterparts: dict[int, int] = {}
        self.weights = 0

    def start(self, *, integer_inputs: bool) -> None:
        """Begin: inputs are given as floats, or as the integers themselves."""
        if integer_inputs:
            for index in self._file.wiring.inputs.values():
                if index in self._integers:
                    self._become_integers(index)

    def integer_operation(self, place: int, fixed: Mapping[int, Range]) -> None:
        """Append the operation at ``place``, computed in integers."""
        operation, operator = self._graph.operators[place], self._file.wiring.operators[place]
        kernel = KERNELS[operator.kind]
        reads = [int(index) for index in operation.inputs]
        for position, index in enumerate(reads):
            if self._file.is_activation(index):
                reads[position] = self.as_integers(index)
        if kernel.weights is not None:
            self._integer_weights(place, kernel.weights, reads)
        else:
            own = self._integers[operator.makes[0]] if kernel.same else None
            for position, index in enumerate(reads):
                if index in self._file.constants and self._file.is_float(index):
                    reads[position] = self._constant(index, own)
        operation.inputs = np.array(reads, np.int32)
        options = operation.builtinOptions
        if self._bits.symmetric and hasattr(options, "potScaleInt16"):
            options.potScaleInt16 = False
        self._operators.append(operation)
        for index in operator.makes:
            if self._file.is_float(index):
                self._become_integers(index)
        made = operator.makes[0]
        if made in fixed and self._bits.fixed(fixed[made]) != self._integers[made]:
            raw = self._tensor(f"{self._name(made)};fixed", self._graph.tensors[made].shape, self._bits.dtype)
            self._scaled(raw, self._bits.fixed(fixed[made]))
            operation.outputs = np.array([raw], np.int32)
            self._convert(schema.BuiltinOperator.QUANTIZE, raw, made)

    def float_operation(self, place: int, *, integer_weights: bool) -> None:
        """Append the operation at ``place``, computed in floats; ``integer_weights``: on weights stored as integers."""
        operation, operator = self._graph.operators[place], self._file.wiring.operators[place]
        reads = [self.as_floats(int(index)) for index in operation.inputs]
        if integer_weights and takes_weights(self._file, place):
            weights = KERNELS[operator.kind].weights
            if weights is not None:
                stored = self._weight(place, weights, None)[0]
                shape = self._graph.tensors[stored].shape
                made = self._tensor(f"{self._name(stored)};dequantized", shape, "float32")
                self._convert(schema.BuiltinOperator.DEQUANTIZE, stored, made)
                reads[weights.weight] = made
        operation.inputs = np.array(reads, np.int32)
        self._operators.append(operation)

    def finish(self, outputs: Mapping[int, int]) -> None:
        """Let the file return ``outputs`` (old → new tensor), and hold the operations that were appended."""
        self._graph.operators = self._operators
        self._graph.outputs = np.array([outputs.get(int(i), int(i)) for i in self._graph.outputs], np.int32)
        for signature in self._model.signatureDefs or []:
            for entry in signature.outputs:
                entry.tensorIndex = outputs.get(int(entry.tensorIndex), int(entry.tensorIndex))

    def as_integers(self, index: int) -> int:
        """Return the tensor of the integers of the activation ``index``."""
        if index in self._whole:
            return index
        if index not in self._counterparts:
            made = self._tensor(f"{self._name(index)};quantized", self._graph.tensors[index].shape, self._bits.dtype)
            self._scaled(made, self._integers[index])
            self._convert(schema.BuiltinOperator.QUANTIZE, index, made)
            self._counterparts[index] = made
        return self._counterparts[index]

    def as_floats(self, index: int) -> int:
        """Return the tensor of the floats of the activation ``index``, or ``index`` where it is no integer one."""
        if index not in self._whole:
            return index
        if index not in self._counterparts:
            made = self._tensor(f"{self._name(index)};dequantized", self._graph.tensors[index].shape, "float32")
            self._convert(schema.BuiltinOperator.DEQUANTIZE, index, made)
            self._counterparts[index] = made
        return self._counterparts[index]

    def is_whole(self, index: int) -> bool:
        """Return whether the tensor ``index`` of the float file now holds integers."""
        return index in self._whole

    @property
    def activations(self) -> int:
        """Return how many activations have integers."""
        return len(self._whole | {index for index in self._counterparts if index not in self._whole})

    def _become_integers(self, index: int) -> None:
        self._graph.tensors[index].type = _TYPES[self._bits.dtype]
        self._scaled(index, self._integers[index])
        self._whole.add(index)

    def _integer_weights(self, place: int, weights: Weights, reads: list[int]) -> None:
        operator = self._file.wiring.operators[place]
        scale = self._integers[operator.reads[weights.read]].scale
        stored, scales = self._weight(place, weights, scale)
        reads[weights.weight] = stored
        if len(reads) > weights.bias and reads[weights.bias] >= 0:
            product = scales * np.float32(scale)
            bias = bias_integers(self._file.values(reads[weights.bias]).reshape(-1), product)
            own = f"{self._name(operator.makes[0])};bias"
            reads[weights.bias] = self._stored(own, bias.astype(self._bits.bias), product, 0)

    def _weight(self, place: int, weights: Weights, input_scale: float | None) -> tuple[int, NDArray[np.float32]]:
        """Return the tensor of the integers of a weight, with their scales."""
        operator = self._file.wiring.operators[place]
        weight = self._file.values(operator.reads[weights.weight])
        require_finite_weight(self._file.path, self._name(operator.reads[weights.weight]), weight)
        bias = None
        if input_scale is not None and len(operator.reads) > weights.bias and operator.reads[weights.bias] >= 0:
            bias = self._file.values(operator.reads[weights.bias]).reshape(-1)
            require_finite_weight(self._file.path, self._name(operator.reads[weights.bias]), bias)
        scales = weight_scales(weight, weights.axis, bias, input_scale, self._bits.bias_limit)
        self.weights += 1
        own = f"{self._name(operator.makes[0])};weight"
        return self._stored(own, weight_integers(weight, scales, weights.axis), scales, weights.axis), scales

    def _constant(self, index: int, own: ActivationIntegers | None) -> int:
        """Return the tensor of the integers of a constant that is added, multiplied or compared."""
        values = self._file.values(index)
        require_finite_weight(self._file.path, self._name(index), values)
        numbers = own or self._bits.spread(Range(min(0.0, float(values.min())), max(0.0, float(values.max()))))
        limits = np.iinfo(self._bits.dtype)
        rounded = np.round(values.astype(np.float64) / numbers.scale) + numbers.zero_point
        made = self._tensor(f"{self._name(index)};{len(self._graph.tensors)}", values.shape, self._bits.dtype)
        self._scaled(made, numbers)
        self._fill(made, np.clip(rounded, limits.min, limits.max).astype(self._bits.dtype))
        self.weights += 1
        return made

    def _stored(self, name: str, values: NDArray[Any], scales: NDArray[np.float32], axis: int) -> int:
        made = self._tensor(name, values.shape, values.dtype.name)
        found = schema.QuantizationParametersT()
        found.scale, found.zeroPoint = scales, np.zeros(len(scales), np.int64)
        found.quantizedDimension = axis
        self._graph.tensors[made].quantization = found
        self._fill(made, values)
        return made

    def _tensor(self, name: str, shape: Collection[int], dtype: str) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.hasRank = name.encode(), _TYPES[dtype], True
        tensor.shape = np.array([int(size) for size in shape], np.int32)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _fill(self, index: int, values: NDArray[Any]) -> None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self._graph.tensors[index].buffer = len(self._model.buffers)
        self._model.buffers.append(buffer)

    def _scaled(self, index: int, numbers: ActivationIntegers) -> None:
        found = schema.QuantizationParametersT()
        found.scale, found.zeroPoint = np.array([numbers.scale], np.float32), np.array([numbers.zero_point], np.int64)
        self._graph.tensors[index].quantization = found

    def _convert(self, builtin: int, read: int, made: int) -> None:
        operation = schema.OperatorT()
        operation.opcodeIndex = operator_code(self._model, builtin)
        operation.inputs, operation.outputs = np.array([read], np.int32), np.array([made], np.int32)
        self._operators.append(operation)

    def _name(self, index: int) -> str:
        return str(self._graph.tensors[index].name.decode(errors="replace"))
