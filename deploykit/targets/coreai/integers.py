"""Integers in the program of a Core AI asset: weights that are made whole again, activations that pass through int8.

Only the process that may load an asset uses this: ``child``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from coreai._compiler._mlir_libs._coreaiIR import _bindings
from coreai._compiler.dialects import coreai
from coreai._compiler.dialects.coreai.constant import create_elements_attr
from coreai._compiler.ir import (
    DenseElementsAttr,
    FloatAttr,
    InsertionPoint,
    IntegerAttr,
    IntegerType,
    Location,
    RankedTensorType,
)

from deploykit.targets.base import Array
from deploykit.targets.coreai.bytecode import named_values
from deploykit.targets.coreai.program import INTEGER_OPERATIONS
from deploykit.targets.integers import int8_weights, packed, palette
from deploykit.targets.quantized import KEPT, NO_GAIN, SHARED

# The stubs of Core AI do not know of it.
_copy_constant = vars(_bindings)["compiler"].copy_constant_value_to_array
_FLOATS = {"f16": "float16", "f32": "float32"}
_TRANSPOSE, _CONSTANT = "coreai.transpose", "coreai.constant"
_FACTORS = (0, 1)


class Integers:
    """The function that ``program`` is run through, open for change; values are called as ``describe`` calls them.

    ``left`` says for each operation whose weights stay floating point, by the value that it computes, why.
    """

    def __init__(self, program: Any) -> None:
        self._program = program
        self._graph, self._names, self._kinds = named_values(program)
        self.left: dict[str, str] = {}
        self._computed: set[Any] = set(self._graph.arguments)
        for operation in self._graph.entry_block.operations:
            if not self._computed.isdisjoint(operation.operands):
                self._computed.update(operation.results)

    def compress(self, bits: int | None, kept: set[str]) -> int:
        """Make the weights int8, or point into palettes of 2 ** ``bits`` values, where that takes fewer bytes.

        The operations ``kept`` keep theirs. Return how many constants were replaced.
        """
        users: dict[Any, list[tuple[str, int]]] = {}
        for operation in self._operations():
            for constant, axis in self._weights(operation):
                users.setdefault(constant, []).append((self._names[operation.results[0]], axis))
        replaced = 0
        for constant, readers in users.items():
            names = [name for name, _ in readers]
            if not kept.isdisjoint(names):
                self.left |= {name: KEPT if name in kept else SHARED for name in names}
            elif not self._shared(constant, readers):
                self.left |= dict.fromkeys(names, SHARED)
            elif self._replace(constant, readers[0][1], bits):
                replaced += 1
            else:
                self.left |= dict.fromkeys(names, NO_GAIN)
        return replaced

    def round_activations(self, scales: Mapping[str, tuple[float, int]], kept: set[str]) -> list[str]:
        """Let every operation that works in integers, but those ``kept``, read its activations through int8.

        ``scales`` has the scale and the zero point of each activation. Return the activations that were rounded.
        """
        rounded: dict[Any, Any] = {}
        for operation in list(self._operations()):
            if self._names[operation.results[0]] in kept:
                continue
            for position in _FACTORS:
                value = operation.operands[position]
                if value in self._computed:
                    if value not in rounded:
                        rounded[value] = self._pair(operation, value, *scales[self._names[value]])
                    operation.operands[position] = rounded[value]
        return [self._names[value] for value in rounded]

    def _operations(self) -> Iterator[Any]:
        for operation in self._graph.entry_block.operations:
            if len(operation.results) == 1 and self._kinds.get(operation.results[0]) in INTEGER_OPERATIONS:
                yield operation

    def _weights(self, operation: Any) -> Iterator[tuple[Any, int]]:
        """Yield the constants that ``operation`` multiplies by, with the axis of their output channels."""
        kind = self._kinds[operation.results[0]]
        for position in _FACTORS:
            made = operation.operands[position].owner
            rank = RankedTensorType(operation.operands[position].type).rank
            axis = _output_axis(kind, position, rank, operation.operands[position])
            if getattr(made, "name", "") == _TRANSPOSE:
                order = np.array(made.operands[1].owner.attributes["value"]).reshape(-1)
                made, axis = made.operands[0].owner, int(order[axis])
            if getattr(made, "name", "") == _CONSTANT and _element(made.results[0].type) in _FLOATS:
                yield made, axis

    def _shared(self, constant: Any, readers: list[tuple[str, int]]) -> bool:
        """Whether nothing but ``readers`` reads ``constant``, all along one axis."""
        return len({axis for _, axis in readers}) == 1 and len(list(constant.results[0].uses)) <= len(readers)

    def _replace(self, constant: Any, axis: int, bits: int | None) -> bool:
        weights = _numbers(constant)
        kind = RankedTensorType(constant.results[0].type).element_type
        with self._program._module._context, Location.unknown(), InsertionPoint(constant):
            if bits is None:
                made = int8_weights(weights, axis)
                if made.integers.nbytes + made.scales.nbytes >= weights.nbytes:
                    return False
                integer = IntegerType.get_signed(8)
                shape = made.broadcast_scales().shape
                whole = coreai.blockwise_shift_scale(
                    _constant(made.integers, integer),
                    _constant(made.broadcast_scales(), kind),
                    _zeros(shape, integer),
                    _zeros(shape, kind),
                )
            else:
                told = palette(weights, bits)
                whole_indices = packed(told.indices, bits)
                if whole_indices.nbytes + told.table.nbytes >= weights.nbytes:
                    return False
                indices = _constant(whole_indices, IntegerType.get_unsigned(bits), weights.shape)
                table = _constant(told.table.reshape(*(1 for _ in weights.shape), -1, 1), kind)
                whole = coreai.lut_to_dense(indices, table, coreai.constant(np.array(0, np.int16)))
        constant.results[0].replace_all_uses_with(whole)
        constant.operation.erase()
        return True

    def _pair(self, before: Any, value: Any, scale: float, zero_point: int) -> Any:
        kind = RankedTensorType(value.type).element_type
        with self._program._module._context, Location.unknown(), InsertionPoint(before):
            integer = IntegerType.get_signed(8)
            step = _constant(np.array(scale, _FLOATS[str(kind)]), kind)
            zero = _constant(np.array(zero_point, np.int8), integer)
            nothing = _zeros((), kind)
            axis = coreai.constant(np.array(0, np.int32))
            coded = coreai.quantize(value, step, zero, nothing, axis)
            return coreai.dequantize(coded, step, zero, nothing, axis)


def _output_axis(kind: str, position: int, rank: int, operand: Any) -> int:
    """Return the axis of the operand at ``position`` that is the output's channels."""
    if kind.startswith("conv_transpose"):
        # (in, out per group, ...): of a depthwise one each input channel is an output channel.
        return 0 if RankedTensorType(operand.type).get_dim_size(1) == 1 else 1
    if kind.startswith("conv"):
        return 0
    return rank - 2 if position == 0 else rank - 1


def _element(kind: Any) -> str:
    return str(RankedTensorType(kind).element_type) if RankedTensorType.isinstance(kind) else ""


def _numbers(constant: Any) -> Array:
    """Return the numbers of a floating-point constant."""
    kind = RankedTensorType(constant.results[0].type)
    shape = [int(kind.get_dim_size(axis)) for axis in range(kind.rank)]
    dtype = np.dtype(_FLOATS[str(kind.element_type)])
    stored = np.array(constant.attributes["value"])
    if stored.dtype != np.object_:
        return stored.astype(dtype).reshape(shape)
    raw = np.zeros(math.prod(shape) * dtype.itemsize, np.uint8)
    _copy_constant(constant_op=constant, destination=raw)
    return raw.view(dtype).reshape(shape)


def _constant(array: Array, element: Any, shape: tuple[int, ...] | None = None) -> Any:
    """Return a constant of ``array``, whose numbers are packed where the dtype ``element`` has less than 8 bits."""
    kind = RankedTensorType.get(list(array.shape if shape is None else shape), element)
    # The compiler reads the buffer later on.
    given = np.ascontiguousarray(array).reshape(array.shape)
    return coreai.ConstantOp(value=create_elements_attr(Location.unknown(), kind, given)).result


def _zeros(shape: tuple[int, ...], element: Any) -> Any:
    """Return a constant of zeros, for which the file stores one number."""
    zero = IntegerAttr.get(element, 0) if isinstance(element, IntegerType) else FloatAttr.get(element, 0.0)
    return coreai.ConstantOp(value=DenseElementsAttr.get_splat(RankedTensorType.get(list(shape), element), zero)).result
