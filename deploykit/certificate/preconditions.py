"""What has to hold for a block's algebra to be exact, looked up in the training form and the state dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import fx

from deploykit.certificate import expression
from deploykit.certificate.expression import Expression
from deploykit.certificate.layer import CONVOLUTION, LINEAR, TRANSPOSED, Layer
from deploykit.certificate.recompute import batch_norm_affine, strides_of
from deploykit.certificate.records import Algebra, Operation, Precondition

_RCRNET = "RCRNet, equations 2 to 4"
_LAYERS = (CONVOLUTION, TRANSPOSED, LINEAR)
_SAME_NUMBER = 1e-12

FOLD = Algebra(
    "BatchNorm folded into the layer before it",
    "gamma*(conv(x, W) + b - mean)/sqrt(var + eps) + beta = conv(x, s*W) + s*(b - mean) + beta, "
    "s = gamma/sqrt(var + eps)",
    "RCRNet, equation 2",
)
AFFINE = Algebra("scale and shift per channel", "s*conv(x, W) + t = conv(x, s*W) + t", "linearity")
MERGE = Algebra(
    "sum of parallel branches", "conv(x, V) + conv(x, W) = conv(x, V + W), the smaller kernel centred", _RCRNET
)
IDENTITY = Algebra("identity as a kernel", "x = conv(x, I), I a 1x1 kernel of ones on the diagonal", _RCRNET)
POOLING = Algebra("average pooling as a kernel", "mean of n values = conv(x, 1/n)", "Diverse Branch Block, transform 5")
COMPOSED = Algebra(
    "convolution after convolution", "conv(conv(x, V), W) = conv(x, W*V), one of them 1x1", "Diverse Branch Block"
)
BORDER = Algebra(
    "border of the response to zero",
    "bn(x) bordered by bn(0) = bn(x bordered by 0)",
    "Diverse Branch Block",
)


def algebra_of(expressed: Expression) -> tuple[Algebra, ...]:
    """Return the identities that a block rests on."""
    operations, terms, source = expressed.operations, expressed.terms, expressed.source
    kinds = [operation.kind for operation in operations]
    summed = len(terms) > 1 or expression.SUM in kinds
    read = [name for operation in operations if operation.kind == expression.SUM for name in operation.reads]
    made_by = {operation.value: operation.kind for operation in operations}
    composed = any(
        operation.kind in (*_LAYERS, expression.POOLING)
        and _before(operation, operations, made_by) & {*_LAYERS, expression.POOLING}
        for operation in operations
    )
    found = (
        (FOLD, expression.BATCH_NORM in kinds),
        (AFFINE, expression.AFFINE in kinds),
        (MERGE, summed),
        (IDENTITY, source in [*read, *(term.value for term in terms)]),
        (POOLING, expression.POOLING in kinds),
        (COMPOSED, composed),
        (BORDER, expression.BORDER in kinds),
    )
    return tuple(algebra for algebra, used in found if used)


def _before(operation: Operation, operations: Sequence[Operation], made_by: Mapping[str, str]) -> set[str]:
    """Return the kinds of the operations that lie between the source and ``operation``."""
    known = {one.value: one for one in operations}
    pending, kinds = list(operation.reads), set()
    while pending:
        name = pending.pop()
        if name in known:
            kinds.add(made_by[name])
            pending.extend(known[name].reads)
    return kinds


def preconditions(expressed: Expression, layer: Layer, others: Sequence[str]) -> tuple[Precondition, ...]:
    """Return each precondition of a block with what was found; ``others`` are readers outside of the block."""
    operations, terms, tensors = expressed.operations, expressed.terms, expressed.tensors
    found = [_evaluated(operations), *_statistics(operations, tensors), _readers(others)]
    found += [_padding(operations, tensors), _groups(operations, layer)]
    if len(terms) > 1 or any(operation.kind == expression.SUM for operation in operations):
        found.append(_strides(expressed))
    pooled = [operation for operation in operations if operation.kind == expression.POOLING]
    if pooled:
        even = all(operation.numbers["even"] for operation in pooled)
        found.append(Precondition("pooling", even, "it divides by one number everywhere, the border included"))
    finite = all(np.isfinite(tensors[name]).all() for one in operations for name in one.tensors.values())
    found.append(
        Precondition("float64", finite, "folded from the checkpoint's numbers, all finite, converted without loss")
    )
    return tuple(found)


def _evaluated(operations: Sequence[Operation]) -> Precondition:
    batch = [one.module for one in operations if one.numbers.get("training")]
    count = sum(one.kind == expression.BATCH_NORM for one in operations)
    why = f"with the statistics of the batch: {', '.join(batch)}" if batch else f"{count} BatchNorm with stored ones"
    return Precondition("evaluation mode", not batch, why)


def _statistics(operations: Sequence[Operation], tensors: Mapping[str, NDArray[np.float64]]) -> list[Precondition]:
    norms = [one for one in operations if one.kind == expression.BATCH_NORM]
    if not norms:
        return []
    eps = min(float(one.numbers["eps"]) for one in norms)
    least = min(float(tensors[one.tensors["var"]].min()) for one in norms)
    return [
        Precondition("eps above 0", eps > 0, f"least eps {eps:g}"),
        Precondition("variance not below 0", least >= 0, f"least variance {least:.4g}"),
    ]


def _readers(others: Sequence[str]) -> Precondition:
    why = f"also read by {', '.join(others)}" if others else "nothing outside the block reads a value inside it"
    return Precondition("no other reader", not others, why)


def _strides(expressed: Expression) -> Precondition:
    strides = set(strides_of(expressed).values())
    text = ", ".join("x".join(map(str, stride)) for stride in sorted(strides))
    return Precondition("one stride", len(strides) == 1, f"every term reads its source at stride {text}")


def _groups(operations: Sequence[Operation], layer: Layer) -> Precondition:
    own = sorted({int(one.numbers["groups"]) for one in operations if one.kind in _LAYERS})
    holds = all(groups % layer.groups == 0 for groups in own)
    text = ", ".join(map(str, own)) or "none"
    return Precondition("groups", holds, f"groups of the layers: {text}; of the folded one: {layer.groups}")


def _padding(operations: Sequence[Operation], tensors: Mapping[str, NDArray[np.float64]]) -> Precondition:
    """Zero padding may follow no shift, unless the border that is laid around it holds the response to zero."""
    name = "order of padding"
    responses: dict[str, NDArray[np.float64]] = {}
    padded = False
    for one in operations:
        before = responses.get(one.reads[0], np.zeros(1))
        if one.kind == expression.BORDER:
            padded = True
            value = tensors[one.tensors["value"]]
            scale = max(float(np.abs(before).max()), float(np.abs(value).max()))
            if not (np.abs(before - value) <= _SAME_NUMBER * scale).all():
                return Precondition(name, False, f"the border in {one.module} is not the response to zero")
        pads = any(one.numbers.get("padding", ())) and one.kind != TRANSPOSED
        padded = padded or pads
        if pads and bool(np.any(before)):
            return Precondition(name, False, f"zero padding in {one.module} follows a shift")
        responses[one.value] = _response(one, [responses.get(read, np.zeros(1)) for read in one.reads], tensors)
    why = "every shift comes after the zero padding, or the border carries it" if padded else "nothing is padded"
    return Precondition(name, True, why)


def _response(
    one: Operation, given: Sequence[NDArray[np.float64]], tensors: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return what ``one`` gives per channel far inside a picture of zeros."""
    if one.kind == expression.SUM:
        return sum((factor * value for factor, value in zip(one.numbers["factors"], given, strict=True)), np.zeros(1))
    if one.kind == expression.BATCH_NORM:
        scale, shift = batch_norm_affine(one, tensors)
        return scale * given[0] + shift
    if one.kind == expression.AFFINE:
        return tensors[one.tensors["scale"]] * given[0] + tensors[one.tensors["shift"]]
    if one.kind not in _LAYERS:
        return given[0]
    bias = tensors[one.tensors["bias"]] if "bias" in one.tensors else np.zeros(1)
    if not np.any(given[0]):
        return bias
    weight = tensors[one.tensors["weight"]]
    through = weight.reshape(*weight.shape[:2], -1).sum(2)
    groups = int(one.numbers["groups"])
    rows = np.broadcast_to(given[0], (groups * through.shape[1],)).reshape(groups, -1)
    response: NDArray[np.float64] = (through * np.repeat(rows, len(weight) // groups, axis=0)).sum(1) + bias
    return response


def readers_outside(nodes: set[fx.Node], ends: Sequence[fx.Node]) -> tuple[str, ...]:
    """Return what reads a value inside a block without being part of it; the block's ``ends`` are its results."""
    inner = nodes - set(ends)
    found = (reader for node in inner for reader in node.users if reader not in nodes)
    return tuple(sorted(reader.name for reader in found))
