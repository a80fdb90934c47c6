"""The operations of an ONNX graph that multiply by stored weights, and how far each can go in integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

# What ONNX Runtime fuses into the operation whose value it reads, where zero is the least of its integers.
_FUSED = ("Relu",)
NO_KERNEL = "ONNX Runtime has no integer kernel for {}"
IS_OUTPUT = "it computes an output of the file, whose scores keep their resolution"


@dataclass(frozen=True)
class Weighted:
    """One operation with stored weights: ``axis`` of the weight has the channels of its output.

    ``value`` is what it computes, ``rounded`` the value whose range its integers span: that of the activation behind
    it where the runtime fuses the two. ``reason`` says why its arithmetic cannot be integers; empty where it can.
    """

    node: onnx.NodeProto
    weight: str
    bias: str
    axis: int
    rounded: str
    reason: str

    @property
    def value(self) -> str:
        """Return the name of what the operation computes."""
        return str(self.node.output[0])

    @property
    def read(self) -> str:
        """Return the name of the activation that it reads."""
        return str(self.node.input[0])


class Constants:
    """The float32 constants of a graph by name: its initializers."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._found = {item.name: item for item in graph.initializer}

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def is_float(self, name: str) -> bool:
        """Return whether ``name`` is a constant in float32."""
        return name in self._found and self._found[name].data_type == TensorProto.FLOAT

    def array(self, name: str) -> NDArray[np.float32]:
        """Return the values of a float32 constant."""
        return np.asarray(numpy_helper.to_array(self._found[name]), np.float32)

    def rank(self, name: str) -> int:
        """Return the number of axes of a constant."""
        return len(self._found[name].dims)


def weighted(graph: onnx.GraphProto) -> Iterator[Weighted]:
    """Yield the operations of ``graph`` that multiply an activation by float32 weights, in the order of the nodes."""
    constants = Constants(graph)
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {output.name for output in graph.output}
    behind = {node.input[0]: node for node in graph.node if node.op_type in _FUSED}
    for node in graph.node:
        axis = _axis(node, constants)
        if axis is None or node.input[0] in constants:
            continue
        value = node.output[0]
        fused = behind.get(value) if readers[value] == 1 and value not in outputs else None
        rounded = fused.output[0] if fused is not None else value
        reason = NO_KERNEL.format(node.op_type) if node.op_type == "ConvTranspose" else ""
        bias = node.input[2] if len(node.input) > 2 else ""
        if bias and not constants.is_float(bias):
            reason = reason or "its bias is computed"
        if rounded in outputs:
            reason = reason or IS_OUTPUT
        yield Weighted(node, node.input[1], bias if constants.is_float(bias) else "", axis, rounded, reason)


def _axis(node: onnx.NodeProto, constants: Constants) -> int | None:
    """Return the axis of the weight that has a scale a channel; None where no stored weight is multiplied."""
    if len(node.input) < 2 or not constants.is_float(node.input[1]):
        return None
    attributes = {item.name: item for item in node.attribute}
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            # (in, out a group, kh, kw): the channels of all groups share the scales.
            return 1
        case "Gemm":
            plain = all(_number(attributes, name, default) == default for name, default in _PLAIN_GEMM)
            return (0 if _number(attributes, "transB", 0) else 1) if plain else None
        case "MatMul":
            return 1 if constants.rank(node.input[1]) == 2 else None
    return None


_PLAIN_GEMM = (("alpha", 1.0), ("beta", 1.0), ("transA", 0.0))


def _number(attributes: Mapping[str, onnx.AttributeProto], name: str, default: float) -> float:
    if name not in attributes:
        return default
    found = attributes[name]
    return float(found.f if found.type == onnx.AttributeProto.FLOAT else found.i)
