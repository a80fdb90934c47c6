"""What the papers call "FLOPs": four conventions, each one literal table of rules; 1 multiply-accumulate counts 1.

The same rules count a captured graph and an exported file: both describe what they execute as ``Operation``s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from deploykit.vocab import Convention


class Kind(StrEnum):
    """What an operation is, as far as counting tells operations apart."""

    CONVOLUTION = "convolution"
    TRANSPOSED_CONVOLUTION = "transposed convolution"
    LINEAR = "linear"
    MATRIX_PRODUCT = "matrix product"
    BATCH_NORM = "BatchNorm"
    NORMALISATION = "normalisation"
    ACTIVATION = "activation"
    ADAPTIVE_POOLING = "adaptive average pooling"
    BILINEAR_RESIZE = "bilinear resize"
    NEAREST_RESIZE = "nearest resize"
    GRID_SAMPLE = "grid sampling"
    OTHER = "other arithmetic"
    MOVE = "moves values"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Operation:
    """One executed operation.

    ``inputs`` and ``outputs`` are the numbers of values of its first input and of its result. A ``kernel`` of so
    many weights is applied at ``positions``, each weight multiplying once: the output positions of a convolution,
    the input positions of a transposed one (whose ``output_positions`` are noted too), the rows of a linear layer,
    the values of a matrix product. ``scaled``: a normalisation with gamma and beta. ``at_output``: its result is a
    result of the network.
    """

    name: str
    kind: Kind
    module: str = ""
    inputs: int = 0
    outputs: int = 0
    kernel: int = 0
    positions: int = 0
    output_positions: int = 0
    bias: bool = False
    scaled: bool = True
    at_output: bool = False


Rule: TypeAlias = Callable[[Operation], int]


@dataclass(frozen=True)
class Rules:
    """One convention: what counts, in words and as ``rules``; every kind that is not listed counts nothing.

    ``training_only``: empty where the convention fits any form, else why it fits the training form alone.
    """

    meaning: str
    source: str
    rules: Mapping[Kind, Rule]
    training_only: str = ""


def _multiplications(operation: Operation) -> int:
    return operation.kernel * operation.positions


def _with_bias(operation: Operation) -> int:
    return _multiplications(operation) + operation.bias * operation.outputs


def _at_output_positions(operation: Operation) -> int:
    return operation.kernel * operation.output_positions + operation.bias * operation.outputs


def _per_output(times: int) -> Rule:
    return lambda operation: times * operation.outputs


def _outside_the_network(times: int) -> Rule:
    # The repositories measured that way enlarge the scores outside of the forward that they count.
    return lambda operation: 0 if operation.at_output else times * operation.outputs


_TRAINING_ONLY = "it counts {what}, which an exported file holds folded, fused or written as other operations"

CONVENTIONS: dict[Convention, Rules] = {
    Convention.MACS: Rules(
        meaning="multiply-accumulates of convolutions, transposed convolutions (exact, at input positions), linear "
        "layers and matrix products, padding included",
        source="the definition: one multiplication with its addition",
        rules={
            Kind.CONVOLUTION: _multiplications,
            Kind.TRANSPOSED_CONVOLUTION: _multiplications,
            Kind.LINEAR: _multiplications,
            Kind.MATRIX_PRODUCT: _multiplications,
        },
    ),
    Convention.CONV_MACS: Rules(
        meaning="multiply-accumulates of convolutions alone: neither transposed convolutions nor linear layers",
        source="the counter of SINet's public code, behind the tables of SINet and RCRNet",
        rules={Kind.CONVOLUTION: _multiplications},
    ),
    Convention.PORTRAITNET_PAPER: Rules(
        meaning="convolutions with their bias, transposed ones counted at output positions (stride squared too "
        "often), 2 for each value of a BatchNorm and 1 for each value of an activation function",
        source="PortraitNet, its own table: the formula that gives its 0.51 G, ENet's 0.44 G and BiSeNet's 2.38 G",
        rules={
            Kind.CONVOLUTION: _with_bias,
            Kind.TRANSPOSED_CONVOLUTION: _at_output_positions,
            Kind.BATCH_NORM: _per_output(2),
            Kind.ACTIVATION: _per_output(1),
        },
        training_only=_TRAINING_ONLY.format(what="BatchNorms and activations"),
    ),
    Convention.MMENGINE: Rules(
        meaning="multiply-accumulates as in macs, 2 for each value of a BatchNorm (1 without gamma), 5 of any other "
        "normalisation (4 without gamma), 1 for each input of a 2-D adaptive average pooling, 4 for each output of "
        "a bilinear resize or a grid sampling, 1 of a nearest resize; a resize that makes a result of the network "
        "lies outside of what is counted",
        source="mmengine.analysis (fvcore's counters), behind the SAPPM report's 0.709 G and 0.136 G",
        rules={
            Kind.CONVOLUTION: _multiplications,
            Kind.TRANSPOSED_CONVOLUTION: _multiplications,
            Kind.LINEAR: _multiplications,
            Kind.MATRIX_PRODUCT: _multiplications,
            Kind.BATCH_NORM: lambda operation: (2 if operation.scaled else 1) * operation.inputs,
            Kind.NORMALISATION: lambda operation: (5 if operation.scaled else 4) * operation.inputs,
            Kind.ADAPTIVE_POOLING: lambda operation: operation.inputs,
            Kind.BILINEAR_RESIZE: _outside_the_network(4),
            Kind.NEAREST_RESIZE: _outside_the_network(1),
            Kind.GRID_SAMPLE: _per_output(4),
        },
        training_only=_TRAINING_ONLY.format(what="BatchNorms, pooling and resizing"),
    ),
}


def count(operation: Operation, convention: Convention) -> int:
    """Return what ``operation`` counts in ``convention``: 0 for every kind that it does not list."""
    rule = CONVENTIONS[convention].rules.get(operation.kind)
    return 0 if rule is None else rule(operation)


def total(operations: Iterable[Operation], convention: Convention) -> int:
    """Return the sum of ``count`` over ``operations``."""
    return sum(count(operation, convention) for operation in operations)


def not_counted(operations: Iterable[Operation], convention: Convention) -> dict[str, int]:
    """Return name → number of the ``operations`` that compute something which ``convention`` does not count.

    Those of unknown work are not among them: see ``unknown``.
    """
    counted = {*CONVENTIONS[convention].rules, Kind.MOVE, Kind.UNKNOWN}
    return _by_name(operation for operation in operations if operation.kind not in counted)


def unknown(operations: Iterable[Operation]) -> dict[str, int]:
    """Return name → number of the ``operations`` whose work is not known: a total without them is a lower bound."""
    return _by_name(operation for operation in operations if operation.kind is Kind.UNKNOWN)


def _by_name(operations: Iterable[Operation]) -> dict[str, int]:
    return dict(Counter(operation.name for operation in operations).most_common())


def einsum_inner(equation: str, shapes: Sequence[tuple[int, ...] | None]) -> int | None:
    """Return how many multiplications make one value of an einsum of at most two operands: over the summed indices.

    None where that is not known: more operands, an ellipsis, no written result, or unknown shapes.
    """
    taken, arrow, made = equation.replace(" ", "").partition("->")
    names = taken.split(",")
    if not arrow or "." in equation or len(names) > 2 or len(names) != len(shapes):
        return None
    sizes: dict[str, int] = {}
    for name, shape in zip(names, shapes, strict=True):
        if shape is None or len(shape) != len(name):
            return None
        sizes.update(zip(name, shape, strict=True))
    return math.prod(size for index, size in sizes.items() if index not in made)
