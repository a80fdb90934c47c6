"""What rules ask of one operation of a lowered graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from torch import fx

from deploykit.graph.graph import argument, aten, is_call, shape_of

Predicate: TypeAlias = Callable[[fx.Node], bool]

_MOVES = (aten.permute.default, aten.transpose.int)
# What may stand between two transposes that undo each other: it treats the axes the same way in any order.
_BETWEEN = (
    aten.layer_norm.default, aten.linear.default, aten.relu.default, aten.gelu.default, aten.silu.default,
    aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.sigmoid.default, aten.softmax.int,
    aten.dropout.default, aten.clone.default, aten.contiguous.default,
)  # fmt: skip
_FARTHEST = 12
# Below this many values, an axis of length one costs little.
_MANY_VALUES = 4096


def always(node: fx.Node) -> bool:
    """Whatever the operation is."""
    return True


def grouped(node: fx.Node) -> bool:
    """A transposed convolution in more than one group."""
    return argument(node, 6, "groups", 1) != 1


def dilated(node: fx.Node) -> bool:
    """A convolution whose taps have gaps."""
    return _any(argument(node, 5, "dilation", 1), lambda step: step != 1)


def dilated_pooling(node: fx.Node) -> bool:
    """A pooling whose taps have gaps."""
    return _any(argument(node, 4, "dilation", 1), lambda step: step != 1)


def overlapping(node: fx.Node) -> bool:
    """A fold whose patches are larger than their distance."""
    kernel: Any = argument(node, 2, "kernel_size")
    stride: Any = argument(node, 5, "stride")
    return any(size > step for size, step in zip(kernel, stride, strict=True))


def of_rank(*ranks: int) -> Predicate:
    """An operation whose result has one of ``ranks`` axes."""

    def holds(node: fx.Node) -> bool:
        shape = shape_of(node)
        return shape is not None and len(shape) in ranks

    return holds


def of_rank_above(rank: int) -> Predicate:
    """An operation whose result has more axes than ``rank``."""

    def holds(node: fx.Node) -> bool:
        shape = shape_of(node)
        return shape is not None and len(shape) > rank

    return holds


def last_axis_of_one(node: fx.Node) -> bool:
    """An operation that returns many values whose last axis is one long."""
    shape = shape_of(node)
    return shape is not None and len(shape) > 1 and shape[-1] == 1 and math.prod(shape) >= _MANY_VALUES


def option(position: int, name: str, *values: object) -> Predicate:
    """An operation whose argument has one of ``values``."""
    return lambda node: argument(node, position, name) in values


def undone_later(node: fx.Node) -> bool:
    """A transpose whose inverse stands a few operations later, with nothing between that needs the order."""
    order = _order(node)
    if order is None:
        return False
    pending, seen = [(user, 0) for user in node.users], set()
    while pending:
        reader, distance = pending.pop()
        if reader in seen or distance > _FARTHEST:
            continue
        seen.add(reader)
        if is_call(reader, *_MOVES):
            back = _order(reader)
            if back is not None and [order[axis] for axis in back] == list(range(len(order))):
                return True
        elif is_call(reader, *_BETWEEN):
            pending.extend((user, distance + 1) for user in reader.users)
    return False


def _order(node: fx.Node) -> list[int] | None:
    """Return the order of axes that ``node`` makes, or None where it makes none."""
    shape = shape_of(node)
    if shape is None or not is_call(node, *_MOVES):
        return None
    rank = len(shape)
    if is_call(node, aten.permute.default):
        dims: Any = argument(node, 1, "dims")
        return [dim % rank for dim in dims]
    order = list(range(rank))
    first, second = (int(str(argument(node, place, "dim"))) % rank for place in (1, 2))
    order[first], order[second] = order[second], order[first]
    return order


def _any(value: object, holds: Callable[[object], bool]) -> bool:
    return any(holds(one) for one in value) if isinstance(value, (list, tuple)) else holds(value)
