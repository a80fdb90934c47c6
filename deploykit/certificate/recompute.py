"""Recompute a folded layer from the tensors of the state dict, in NumPy, without the passes' algebra.

A linear map of pictures is written as a stencil: ``out(y, x) = bias + sum over taps of M[dy, dx] in(s*y + dy, s*x +
dx)``. Every step multiplies and adds elementwise in a fixed order, which IEEE 754 makes the same bytes on every
machine: no matrix product, whose order of summation belongs to the processor.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploykit.certificate import expression
from deploykit.certificate.expression import Expression
from deploykit.certificate.layer import CONVOLUTION, LINEAR, TRANSPOSED, Layer
from deploykit.certificate.records import Operation, TensorHash

Array: TypeAlias = NDArray[np.float64]
Pair: TypeAlias = tuple[int, int]


class NotOneLayerError(Exception):
    """Operations that are not one layer; the message says why."""


@dataclass(frozen=True)
class Stencil:
    """Matrices (out, in_per_group) by tap; output channels and input channels are split into ``groups``."""

    taps: Mapping[Pair, Array]
    bias: Array
    groups: int
    stride: Pair = (1, 1)

    @property
    def inputs(self) -> int:
        """The number of input channels."""
        return int(next(iter(self.taps.values())).shape[1]) * self.groups


def tensor_hash(tensor: Array) -> TensorHash:
    """Return the shape and the hashes of ``tensor``, as little-endian float64 and rounded to float32."""
    double = np.ascontiguousarray(tensor, dtype="<f8")
    with np.errstate(over="ignore"):  # a weight that overflows float32 is reported by its bound
        single = double.astype("<f4")
    digests = (hashlib.sha256(values.tobytes()).hexdigest() for values in (double, single))
    return TensorHash(tensor.shape, *digests)


def recompute(expressed: Expression, layer: Layer, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return weight, of ``shape``, and bias of the layer with the geometry of ``layer`` that a block makes.

    Raises NotOneLayerError where its operations are not such a layer.
    """
    terms, tensors = expressed.terms, expressed.tensors
    if layer.kind != CONVOLUTION or len(shape) != 4:
        return _scaled_layer(expressed, layer)
    channels = shape[1] * layer.groups
    start = Stencil({(0, 0): np.ones((channels, 1))}, np.zeros(channels), channels)
    values = {expressed.source: start}
    for operation in expressed.operations:
        values[operation.value] = _apply(operation, [values[name] for name in operation.reads], tensors)
    total = _sum([values[term.value] for term in terms], [term.factor for term in terms])
    return _as_kernel(total, layer, shape), total.bias


def strides_of(expressed: Expression) -> dict[str, Pair]:
    """Return the name of each term → the stride at which it reads the source."""
    strides: dict[str, Pair] = {expressed.source: (1, 1)}
    for operation in expressed.operations:
        down, across = operation.numbers.get("stride") or (1, 1)
        before = strides[operation.reads[0]]
        strides[operation.value] = (before[0] * down, before[1] * across)
    return {term.value: strides[term.value] for term in expressed.terms}


def batch_norm_affine(operation: Operation, tensors: Mapping[str, Array]) -> tuple[Array, Array]:
    """Return scale and shift of an evaluated BatchNorm (RCRNet, equation 2)."""
    read = {role: tensors[name] for role, name in operation.tensors.items()}
    with np.errstate(all="ignore"):  # a variance below -eps is a precondition that fails, and says so
        deviation = np.sqrt(read["var"] + operation.numbers["eps"])
        scale = read.get("gamma", np.ones_like(deviation)) / deviation
        return scale, read.get("beta", np.zeros_like(scale)) - scale * read["mean"]


def _apply(operation: Operation, given: Sequence[Stencil], tensors: Mapping[str, Array]) -> Stencil:
    before = given[0]
    if operation.kind == expression.SUM:
        return _sum(given, operation.numbers["factors"])
    if operation.kind == expression.BATCH_NORM:
        return _affine(before, *batch_norm_affine(operation, tensors))
    if operation.kind == expression.AFFINE:
        return _affine(before, tensors[operation.tensors["scale"]], tensors[operation.tensors["shift"]])
    if operation.kind == expression.BORDER:
        top, left = operation.numbers["before"]
        return _moved(before, (-top, -left))
    if operation.kind == expression.POOLING:
        height, width = operation.numbers["size"]
        channels = len(before.bias)
        weight = np.full((channels, 1, height, width), 1.0 / operation.numbers["divisor"])
        return _window(before, weight, np.zeros(channels), channels, {**operation.numbers, "dilation": (1, 1)})
    if operation.kind != CONVOLUTION:
        raise NotOneLayerError(f"a {operation.kind} inside")
    weight = tensors[operation.tensors["weight"]]
    bias = tensors[operation.tensors["bias"]] if "bias" in operation.tensors else np.zeros(len(weight))
    return _window(before, weight, bias, operation.numbers["groups"], operation.numbers)


def _affine(before: Stencil, scale: Array, shift: Array) -> Stencil:
    scale = np.broadcast_to(scale, before.bias.shape)
    taps = {tap: matrix * scale[:, None] for tap, matrix in before.taps.items()}
    return replace(before, taps=taps, bias=before.bias * scale + shift)


def _moved(before: Stencil, steps: Pair) -> Stencil:
    """Read ``before`` at (y, x) + ``steps``."""
    down, across = steps[0] * before.stride[0], steps[1] * before.stride[1]
    return replace(before, taps={(dy + down, dx + across): matrix for (dy, dx), matrix in before.taps.items()})


def _window(before: Stencil, weight: Array, bias: Array, groups: int, numbers: Mapping[str, Sequence[int]]) -> Stencil:
    stride, padding, dilation = (numbers[name] for name in ("stride", "padding", "dilation"))
    taps: dict[Pair, Array] = {}
    total, joined = bias, groups
    for i, j in np.ndindex(*weight.shape[2:]):
        moved = _moved(before, (dilation[0] * i - padding[0], dilation[1] * j - padding[1]))
        through = weight[:, :, i, j] * np.repeat(before.bias.reshape(groups, -1), len(weight) // groups, axis=0)
        total = total + np.cumsum(through, axis=1)[:, -1]  # cumsum adds one after the other, sum does not
        for tap, matrix in moved.taps.items():
            product, joined = _compose(weight[:, :, i, j], groups, matrix, before.groups)
            taps[tap] = taps[tap] + product if tap in taps else product
    return Stencil(taps, total, joined, (before.stride[0] * stride[0], before.stride[1] * stride[1]))


def _compose(second: Array, groups: int, first: Array, first_groups: int) -> tuple[Array, int]:
    """Return the product of two grouped matrices, summed in order of the channel between them, and its groups."""
    if first_groups == len(first) and first.shape[1] == 1 and first_groups > 1:
        rows = len(second) // groups
        per_group = first[:, 0].reshape(groups, -1)
        return second * np.repeat(per_group, rows, axis=0), groups
    if groups == len(second) == len(first) and first_groups > 1:
        return first * second, first_groups
    common = math.gcd(groups, first_groups)
    left, right = _regrouped(second, groups, common), _regrouped(first, first_groups, common)
    left = left.reshape(common, -1, left.shape[1])
    right = right.reshape(common, left.shape[2], -1)
    product = np.zeros((common, left.shape[1], right.shape[2]))
    for middle in range(left.shape[2]):
        product = product + left[:, :, middle, None] * right[:, middle, None, :]
    return product.reshape(len(second), -1), common


def _regrouped(matrix: Array, groups: int, fewer: int) -> Array:
    """Return the grouped ``matrix`` as one in ``fewer`` groups, block diagonal in the old ones."""
    joined = groups // fewer
    if joined == 1:
        return matrix
    out, per_group = matrix.shape
    wide = np.zeros((fewer, joined, out // groups, joined, per_group))
    blocks = matrix.reshape(fewer, joined, out // groups, per_group)
    for index in range(joined):
        wide[:, index, :, index] = blocks[:, index]
    return wide.reshape(out, joined * per_group)


def _sum(given: Sequence[Stencil], factors: Sequence[float]) -> Stencil:
    if len({one.stride for one in given}) > 1:
        raise NotOneLayerError("terms of different strides")
    common = math.gcd(*(one.groups for one in given))
    taps: dict[Pair, Array] = {}
    bias = np.zeros_like(given[0].bias)
    for one, factor in zip(given, factors, strict=True):
        bias = bias + factor * one.bias
        for tap, matrix in one.taps.items():
            own = factor * _regrouped(matrix, one.groups, common)
            taps[tap] = taps[tap] + own if tap in taps else own
    return Stencil(taps, bias, common, given[0].stride)


def _as_kernel(stencil: Stencil, layer: Layer, shape: tuple[int, ...]) -> Array:
    """Return the taps of ``stencil`` on the grid of ``layer``, (out, in_per_group, kh, kw), zero elsewhere."""
    if stencil.stride != layer.stride or stencil.groups % layer.groups:
        raise NotOneLayerError(
            f"stride {stencil.stride} and {stencil.groups} groups instead of {layer.stride} and {layer.groups}"
        )
    kernel = np.zeros(shape)
    for tap, matrix in stencil.taps.items():
        place = []
        for axis in range(2):
            index, rest = divmod(tap[axis] + layer.padding[axis], layer.dilation[axis])
            if rest or not 0 <= index < shape[2 + axis]:
                raise NotOneLayerError(f"tap {tap} is not on the grid of the folded kernel")
            place.append(index)
        kernel[:, :, place[0], place[1]] = _regrouped(matrix, stencil.groups, layer.groups)
    return kernel


def _scaled_layer(expressed: Expression, layer: Layer) -> tuple[Array, Array]:
    """Return a layer of any rank followed by BatchNorms, scalings and shifts."""
    first, *rest = expressed.operations
    tensors = expressed.tensors
    kinds = {CONVOLUTION, TRANSPOSED, LINEAR}
    if first.kind not in kinds or any(one.kind not in (expression.BATCH_NORM, expression.AFFINE) for one in rest):
        raise NotOneLayerError("not one layer followed by operations per channel")
    weight = tensors[first.tensors["weight"]]
    transposed = first.kind == TRANSPOSED
    outputs = weight.shape[1] * layer.groups if transposed else len(weight)
    bias = tensors[first.tensors["bias"]] if "bias" in first.tensors else np.zeros(outputs)
    for operation in rest:
        if operation.kind == expression.BATCH_NORM:
            scale, shift = batch_norm_affine(operation, tensors)
        else:
            scale, shift = (tensors[operation.tensors[role]] for role in ("scale", "shift"))
        scale = np.broadcast_to(scale, (outputs,))
        bias = bias * scale + shift
        if transposed:
            rows = np.repeat(scale.reshape(layer.groups, -1), len(weight) // layer.groups, axis=0)
            weight = weight * rows.reshape(*rows.shape, *(1 for _ in weight.shape[2:]))
        else:
            weight = weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    return weight, bias
