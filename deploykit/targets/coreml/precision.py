"""Which operations of an fp16 program stay in float32: those asked for, and what computes where a ``resample`` reads.

A coordinate between -1 and 1 has a step of 2^-11 in half precision: up to 1/64 of a pixel in 64 columns, 1/32 in 128.
The features themselves keep 11 bits, so that rounding the coordinates can cost more than rounding the features.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import coremltools as ct
from coremltools.converters.mil.mil import types

# What may stand between a flow and the coordinates; a convolution is the flow's, and rounds as any other.
_ARITHMETIC = frozenset({
    "add", "sub", "mul", "real_div", "clip", "concat", "stack", "transpose", "reshape", "expand_dims", "squeeze",
    "slice_by_index", "slice_by_size", "split", "tile",
})  # fmt: skip


def half_precision(named: Collection[str] = (), float32_values: Collection[str] = ()) -> Any:
    """Return the precision of an fp16 program for ``coremltools.convert``.

    It is float16 everywhere but in coordinates, and in the operations that compute ``float32_values``, some of the
    values ``named`` after the lowered graph.
    """
    return ct.transform.FP16ComputePrecision(
        op_selector=lambda op: _may_be_half(op) and not _computes(op, frozenset(named), frozenset(float32_values))
    )


def _computes(op: Any, named: frozenset[str], wanted: frozenset[str]) -> bool:
    """Whether ``op`` computes one of ``wanted``, or a step on the way to it: what has no name of the lowered graph."""
    if not wanted or op.op_type == "const":
        return False
    names = {output.name for output in op.outputs}
    if not named.isdisjoint(names):
        return not wanted.isdisjoint(names)
    return any(_computes(reader, named, wanted) for output in op.outputs for reader in output.child_ops)


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
