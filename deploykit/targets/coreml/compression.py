"""Weights of a Core ML program as integers or palettes: the operations that Core ML makes them whole again with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools.converters.mil.backend.mil import helper
from coremltools.proto import MIL_pb2

from deploykit.targets.base import Array
from deploykit.targets.coreml.program_file import ProgramFile
from deploykit.targets.integers import int8_weights, packed, palette
from deploykit.vocab import Precision

# The opset from which on integers of less than 8 bits are a dtype, and scales stand in blocks.
_BLOCKS = 8
_BITS = {Precision.PALETTE6: 6, Precision.PALETTE4: 4}
_ROWS = "transpose_y"


@dataclass(frozen=True)
class Weight:
    """The constant that an operation multiplies by: its name, and the axis of it that is the output channels."""

    name: str
    axis: int


def weight_of(operation: Any, constants: dict[str, Any]) -> Weight | None:
    """Return the weight of ``operation``; None where it multiplies by no constant."""
    kind, argument = operation.type, "weight"
    if kind == "matmul":
        argument = next((one for one in ("x", "y") if _name(operation, one) in constants), "")
    elif kind not in ("conv", "conv_transpose", "linear"):
        return None
    name = _name(operation, argument)
    if name not in constants:
        return None
    constant = constants[name]
    rank = len(constant.outputs[0].type.tensorType.dimensions)
    if kind == "conv_transpose":
        # (in, out per group, ...): of a depthwise one each input channel is an output channel.
        return Weight(name, 0 if constant.outputs[0].type.tensorType.dimensions[1].constant.size == 1 else 1)
    if kind == "matmul":
        transposed = _flag(operation, f"transpose_{argument}", constants)
        last = (argument == "y") != transposed
        return Weight(name, rank - 1 if last else rank - 2)
    return Weight(name, 0)


def compress(program: ProgramFile, operation: Any, weights: Array, axis: int, precision: Precision) -> bool:
    """Make the constant ``operation`` integers of ``precision``; False, and nothing changed, where none is gained."""
    if precision in _BITS:
        stated, size = _palette(program, weights, _BITS[precision])
    else:
        stated, size = _int8(program, weights, axis)
    if size >= weights.nbytes:
        return False
    kept = MIL_pb2.Operation(outputs=operation.outputs)
    kind = stated.pop("type")
    operation.Clear()
    operation.type = kind
    operation.outputs.extend(kept.outputs)
    operation.attributes["name"].CopyFrom(helper.create_scalar_value(kept.outputs[0].name))
    for name, value in stated.items():
        if program.opset >= _BLOCKS:
            operation.inputs[name].arguments.add().value.CopyFrom(value)
        else:
            operation.attributes[name].CopyFrom(value)
    return True


def _int8(program: ProgramFile, weights: Array, axis: int) -> tuple[dict[str, Any], int]:
    made = int8_weights(weights, axis)
    size = made.integers.nbytes + made.scales.nbytes
    if program.opset >= _BLOCKS:
        values = {"data": program.value(made.integers), "scale": program.value(made.broadcast_scales())}
        return {"type": "constexpr_blockwise_shift_scale", **values}, size
    zero = np.int8(0)
    return {
        "type": "constexpr_affine_dequantize",
        "quantized_data": program.value(made.integers),
        "zero_point": helper.create_scalar_value(zero),
        "scale": program.value(made.scales),
        "axis": helper.create_scalar_value(np.int32(axis)),
    }, size + zero.nbytes


def _palette(program: ProgramFile, weights: Array, bits: int) -> tuple[dict[str, Any], int]:
    made = palette(weights, bits)
    whole = packed(made.indices, bits)
    size = whole.nbytes + made.table.nbytes
    if program.opset >= _BLOCKS:
        table = made.table.reshape(*(1 for _ in weights.shape), -1, 1)
        values = {"indices": program.value(made.indices, f"UINT{bits}"), "lut": program.value(table)}
        return {"type": "constexpr_lut_to_dense", **values}, size
    return {
        "type": "constexpr_lut_to_dense",
        "indices": program.value(whole),
        "lut": program.value(made.table),
        "shape": helper.create_tensor_value(np.array(weights.shape, np.uint32)),
    }, size


def _name(operation: Any, argument: str) -> str:
    found = operation.inputs[argument].arguments if argument in operation.inputs else ()
    return str(found[0].name) if found else ""


def _flag(operation: Any, argument: str, constants: dict[str, Any]) -> bool:
    constant = constants.get(_name(operation, argument))
    if constant is None:
        return False
    stored = constant.attributes["val"].immediateValue.tensor.bools.values
    return bool(stored and stored[0])
