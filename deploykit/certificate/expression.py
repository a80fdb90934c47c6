"""Read the part of the training graph that a block replaces as a list of operations on named tensors."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from deploykit.certificate.blocks import operands_of_sum
from deploykit.certificate.layer import CONVOLUTION, read_layer
from deploykit.certificate.records import Operation, Term
from deploykit.graph.graph import argument, aten, computed_constant, constant, is_call, module_path, shape_of
from deploykit.graph.passes.border_frame import read_frame

BATCH_NORM, POOLING, AFFINE, BORDER, SUM = "BatchNorm", "average pooling", "scale and shift", "border", "sum"
COMPUTED = "computed:"

_SCALINGS = (aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar)
_SHIFTS = (aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar)
_STATISTICS = (("gamma", 1, "weight"), ("beta", 2, "bias"), ("mean", 3, "running_mean"), ("var", 4, "running_var"))


class UnreadableError(Exception):
    """An operation that is no linear one; the message says which."""


@dataclass(frozen=True)
class Expression:
    """What a block computes from ``source`` in the training form: the sum of ``terms``, float64 ``tensors`` by name."""

    source: str
    operations: tuple[Operation, ...]
    terms: tuple[Term, ...]
    tensors: Mapping[str, NDArray[np.float64]]


class Reading:
    """Operations in the order of computation, and the tensors that only the code of the network holds."""

    def __init__(self, module: fx.GraphModule, source: fx.Node) -> None:
        self.module = module
        self.source = source
        self.operations: dict[str, Operation] = {}
        self.computed: dict[str, NDArray[np.float64]] = {}

    def read(self, node: fx.Node) -> str:
        """Add what computes ``node`` from the source; return the name of its value. Raises ``UnreadableError``."""
        if node is not self.source and node.name not in self.operations:
            operation = self._operation(node)
            self.operations[node.name] = operation
        return node.name

    def _operation(self, node: fx.Node) -> Operation:
        operands = operands_of_sum(self.module, node)
        if operands is not None:
            reads = tuple(self.read(one) for one, _ in operands)
            return self._made(node, SUM, reads, factors=[factor for _, factor in operands])
        frame = read_frame(self.module, node)
        if frame is not None:
            value = self._keep(f"{COMPUTED}{node.name}", frame.value)
            return self._made(node, BORDER, (self.read(frame.source),), {"value": value}, before=list(frame.before))
        layer = read_layer(node)
        given = node.args[0] if node.args else None
        if layer is not None and isinstance(given, fx.Node):
            tensors = {"weight": self._name(layer.weight)}
            if layer.bias is not None:
                tensors["bias"] = self._name(layer.bias)
            return self._made(
                node,
                layer.kind,
                (self.read(given),),
                tensors,
                stride=list(layer.stride),
                padding=list(layer.padding),
                dilation=list(layer.dilation),
                groups=layer.groups,
            )
        if is_call(node, aten.batch_norm.default) and isinstance(given, fx.Node):
            named = {role: argument(node, place, name) for role, place, name in _STATISTICS}
            tensors = {role: self._name(value) for role, value in named.items() if value is not None}
            numbers: dict[str, Any] = {"eps": argument(node, 7, "eps"), "training": argument(node, 5, "training")}
            return self._made(node, BATCH_NORM, (self.read(given),), tensors, **numbers)
        if is_call(node, aten.avg_pool2d.default) and isinstance(given, fx.Node):
            return self._pooling(node, given)
        return self._affine(node)

    def _made(
        self,
        node: fx.Node,
        kind: str,
        reads: tuple[str, ...],
        tensors: dict[str, str] | None = None,
        **numbers: Any,
    ) -> Operation:
        return Operation(node.name, kind, module_path(node), reads, tensors or {}, numbers)

    def _name(self, value: object) -> str:
        """Return the name in the state dict of a weight, or a name under which a computed one is kept."""
        if constant(self.module, value) is not None:
            assert isinstance(value, fx.Node)
            return str(value.target)
        tensor = computed_constant(self.module, value)
        if tensor is None or not isinstance(value, fx.Node):
            raise UnreadableError(f"{value} is computed from the input")
        return self._keep(f"{COMPUTED}{value.name}", tensor)

    def _keep(self, name: str, tensor: Tensor) -> str:
        self.computed[name] = tensor.detach().double().numpy()
        return name

    def _pooling(self, node: fx.Node, given: fx.Node) -> Operation:
        size = _pair(argument(node, 1, "kernel_size"))
        padding = _pair(argument(node, 3, "padding", 0))
        divisor = argument(node, 6, "divisor_override")
        counts = argument(node, 5, "count_include_pad", True)
        numbers: dict[str, Any] = {
            "size": size,
            "stride": _pair(argument(node, 2, "stride") or size),
            "padding": padding,
            "divisor": divisor or size[0] * size[1],
            "even": bool(counts or divisor or not any(padding)),
        }
        return self._made(node, POOLING, (self.read(given),), **numbers)

    def _affine(self, node: fx.Node) -> Operation:
        """Read a scaling or a shift per channel by a constant."""
        shape = shape_of(node)
        if shape is None or not (is_call(node, *_SCALINGS, *_SHIFTS, aten.neg.default)):
            raise UnreadableError(f"{node.target} is no linear operation")
        operands: tuple[object, ...] = (node.args[0], argument(node, 1, "other"))
        places = [place for place, one in enumerate(operands) if self._computed(one)]
        if len(places) != 1:
            raise UnreadableError(f"{node.target} has no constant operand")
        given = operands[places[0]]
        assert isinstance(given, fx.Node)
        if is_call(node, aten.neg.default):
            scale, shift = torch.tensor(-1.0).double(), torch.tensor(0.0).double()
        else:
            scale, shift = self._scale_and_shift(node, operands[1 - places[0]], places[0])
        tensors = {
            "scale": self._keep(f"{COMPUTED}{node.name}.scale", scale.flatten()),
            "shift": self._keep(f"{COMPUTED}{node.name}.shift", shift.flatten()),
        }
        return self._made(node, AFFINE, (self.read(given),), tensors)

    def _computed(self, value: object) -> bool:
        return isinstance(value, fx.Node) and computed_constant(self.module, value) is None

    def _scale_and_shift(self, node: fx.Node, number: object, place: int) -> tuple[Tensor, Tensor]:
        value = computed_constant(self.module, number)
        if value is None:
            assert isinstance(number, (int, float))
            value = torch.tensor(float(number))
        full = (1,) * (len(shape_of(node) or ()) - value.dim()) + tuple(value.shape)
        if any(size != 1 for axis, size in enumerate(full) if axis != 1):
            raise UnreadableError(f"the constant of {node.target} is not one value per channel")
        value, zero = value.double(), torch.zeros(1, dtype=torch.float64)
        if is_call(node, *_SCALINGS):
            divides = is_call(node, aten.div.Tensor, aten.div.Scalar)
            if node.kwargs.get("rounding_mode") or (divides and place == 1):
                raise UnreadableError(f"{node.target} divides by the input or rounds")
            return (operator.truediv(1.0, value) if divides else value), zero
        alpha = argument(node, 2, "alpha", 1)
        assert isinstance(alpha, (int, float))
        sign = -1.0 if is_call(node, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar) else 1.0
        if is_call(node, aten.rsub.Scalar):  # value - alpha * x
            return zero - alpha, value
        one = zero + 1
        return (one, sign * alpha * value) if place == 0 else (sign * alpha * one, value)


def is_shape_free(nodes: set[fx.Node]) -> bool:
    """Whether all of ``nodes`` compute the same on a smaller picture: no view, slice or pooling with its own size."""
    pointwise = (*_SCALINGS, *_SHIFTS, aten.neg.default, aten.batch_norm.default)
    layers = [read_layer(node) for node in nodes]
    return all(
        is_call(node, *pointwise) or (layer is not None and layer.kind == CONVOLUTION)
        for node, layer in zip(nodes, layers, strict=True)
    )


def _pair(value: object) -> list[int]:
    numbers = [value] if isinstance(value, int) else list(value)  # type: ignore[call-overload]
    return [numbers[0], numbers[-1]]
