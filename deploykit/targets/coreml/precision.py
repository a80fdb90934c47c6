"""Which operations of an fp16 program stay in float32: those that compute where a ``resample`` reads.

A coordinate between -1 and 1 has a step of 2^-11 in half precision: up to 1/64 of a pixel in 64 columns, 1/32 in 128.
The features themselves keep 11 bits, so that rounding the coordinates can cost more than rounding the features.
"""

from __future__ import annotations

from typing import Any

import coremltools as ct
from coremltools.converters.mil.mil import types

# What may stand between a flow and the coordinates; a convolution is the flow's, and rounds as any other.
_ARITHMETIC = frozenset({
    "add", "sub", "mul", "real_div", "clip", "concat", "stack", "transpose", "reshape", "expand_dims", "squeeze",
    "slice_by_index", "slice_by_size", "split", "tile",
})  # fmt: skip


def half_precision() -> Any:
    """Return the precision of an fp16 program for ``coremltools.convert``: float16 everywhere but in coordinates."""
    return ct.transform.FP16ComputePrecision(op_selector=_may_be_half)


def _may_be_half(op: Any) -> bool:
    if op.op_type == "resample":
        # From iOS 16 on the converter would round the coordinates too; before, the operation takes only float32.
        return types.fp16 not in op.input_spec.input_types["coordinates"].type_domain
    return not _computes_coordinates(op)


def _computes_coordinates(op: Any) -> bool:
    """Whether everything that reads the results of ``op`` computes coordinates, or resamples at them."""
    readers = [(reader, output) for output in op.outputs for reader in output.child_ops]
    return (
        op.op_type in _ARITHMETIC
        and bool(readers)
        and all(
            reader.inputs["coordinates"] is output if reader.op_type == "resample" else _computes_coordinates(reader)
            for reader, output in readers
        )
    )
