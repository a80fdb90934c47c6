"""Slicing, gathering, scattering and what else reads or writes at given positions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation, UndefinedResultError

_SCATTER_REDUCTION = {"mul": "prod", "div": "prod", "max": "amax", "min": "amin"}


def _mask(arguments: Arguments, name: str, rank: int) -> list[bool]:
    return [bool(flag) for flag in arguments.integers(name)] if arguments.has(name) else [False] * rank


def _positions(arguments: Arguments, shape: torch.Size) -> list[range]:
    """Return the positions that a slice by index takes along each axis, numpy's rules for negative numbers."""
    rank = len(shape)
    begins, ends = arguments.integers("begin"), arguments.integers("end")
    strides = arguments.integers("stride") if arguments.has("stride") else [1] * rank
    from_start, to_end = _mask(arguments, "begin_mask", rank), _mask(arguments, "end_mask", rank)
    alone = _mask(arguments, "squeeze_mask", rank)
    taken = []
    for axis, size in enumerate(shape):
        begin = None if from_start[axis] else begins[axis]
        end = None if to_end[axis] else ends[axis]
        if alone[axis]:
            first = 0 if begin is None else begin % size
            taken.append(range(first, first + 1))
        elif size == 1:
            # The specification keeps an axis of size 1 whatever the bounds say.
            taken.append(range(1))
        else:
            taken.append(range(*slice(begin, end, strides[axis]).indices(size)))
    return taken


def _slice_by_index(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    alone = _mask(arguments, "squeeze_mask", x.ndim)
    out = x
    for axis, positions in enumerate(_positions(arguments, x.shape)):
        if positions.step == 1:
            out = out.narrow(axis, positions.start if len(positions) else 0, len(positions))
        else:
            out = out.index_select(axis, torch.tensor(list(positions), dtype=torch.int64))
    return out.squeeze([axis for axis, flag in enumerate(alone) if flag])


def _slice_update(arguments: Arguments) -> Tensor:
    out = arguments.tensor("x").clone()
    positions = _positions(arguments, out.shape)
    grid = torch.meshgrid([torch.tensor(list(taken), dtype=torch.int64) for taken in positions], indexing="ij")
    out[grid] = arguments.tensor("update").reshape(grid[0].shape)
    return out


def _slice_by_size(arguments: Arguments) -> Tensor:
    out = arguments.tensor("x")
    bounds = zip(arguments.integers("begin"), arguments.integers("size"), strict=True)
    for axis, (begin, size) in enumerate(bounds):
        first = begin % out.shape[axis]
        out = out.narrow(axis, first, out.shape[axis] - first if size == -1 else size)
    return out


def _wrapped(arguments: Arguments, indices: Tensor, size: int) -> Tensor:
    """Return ``indices`` along an axis of ``size``, all within it. Raises UndefinedResultError."""
    # The forms of iOS 17 on, which have this parameter, no longer count negative indices from the end.
    least = 0 if arguments.has("validate_indices") else -size
    outside = indices[(indices < least) | (indices >= size)]
    if outside.numel():
        raise UndefinedResultError(f"index {int(outside[0])} of an axis that takes {least} to {size - 1}")
    return torch.where(indices < 0, indices + size, indices)


def _gather(arguments: Arguments) -> Tensor:
    x, indices = arguments.tensor("x"), arguments.tensor("indices")
    axis, batch = arguments.integer("axis") % x.ndim, arguments.integer("batch_dims", 0)
    indices = _wrapped(arguments, indices, x.shape[axis])
    if batch == 0:
        out = x.index_select(axis, indices.reshape(-1))
        return out.reshape(x.shape[:axis] + indices.shape + x.shape[axis + 1 :])
    rows = x.reshape(-1, *x.shape[batch:])
    picks = indices.reshape(-1, *indices.shape[batch:])
    taken = [row.index_select(axis - batch, pick.reshape(-1)) for row, pick in zip(rows, picks, strict=True)]
    return torch.stack(taken).reshape(x.shape[:axis] + indices.shape[batch:] + x.shape[axis + 1 :])


def _gather_along_axis(arguments: Arguments) -> Tensor:
    x, axis = arguments.tensor("x"), arguments.integer("axis")
    return torch.take_along_dim(x, _wrapped(arguments, arguments.tensor("indices"), x.shape[axis]), axis)


def _rows(arguments: Arguments, indices: Tensor, shape: torch.Size) -> Tensor:
    """Return for each index vector (..., K) the number of the row it names among the first K axes of ``shape``."""
    number = torch.zeros(indices.shape[:-1], dtype=torch.int64)
    for axis, size in enumerate(shape[: indices.shape[-1]]):
        number = number * size + _wrapped(arguments, indices[..., axis], size)
    return number


def _gather_nd(arguments: Arguments) -> Tensor:
    x, indices, batch = (
        arguments.tensor("x"),
        arguments.tensor("indices"),
        arguments.integer("batch_dims", 0),
    )
    depth = indices.shape[-1]
    blocks = x.reshape(-1, *x.shape[batch:])
    picks = indices.reshape(blocks.shape[0] if batch else 1, *indices.shape[batch:])
    if batch == 0:
        blocks = x.unsqueeze(0)
    taken = [
        block.reshape(-1, *block.shape[depth:])[_rows(arguments, pick, block.shape)]
        for block, pick in zip(blocks, picks, strict=True)
    ]
    return torch.stack(taken).reshape(indices.shape[:-1] + x.shape[batch + depth :])


def _scattered(flat: Tensor, where: Tensor, updates: Tensor, mode: str) -> Tensor:
    """Return the flat tensor with ``updates`` brought in at the positions ``where``."""
    where, updates = where.reshape(-1), updates.reshape(-1)
    if mode == "update":
        return flat.scatter(0, where, updates)
    if mode in {"add", "sub"}:
        return flat.scatter_add(0, where, updates if mode == "add" else -updates)
    if mode == "div":
        updates = 1.0 / updates
    return flat.scatter_reduce(0, where, updates, _SCATTER_REDUCTION[mode])


def _scatter_nd(arguments: Arguments) -> Tensor:
    base, indices = arguments.tensor("data"), arguments.tensor("indices")
    width = math.prod(base.shape[indices.shape[-1] :])
    where = _rows(arguments, indices, base.shape).reshape(-1, 1) * width + torch.arange(width)
    flat = _scattered(base.reshape(-1), where, arguments.tensor("updates"), arguments.text("mode"))
    return flat.reshape(base.shape)


def _scatter_along_axis(arguments: Arguments) -> Tensor:
    base, axis = arguments.tensor("data"), arguments.integer("axis")
    indices = _wrapped(arguments, arguments.tensor("indices"), base.shape[axis])
    places = torch.arange(base.numel()).reshape(base.shape)
    where = torch.take_along_dim(places, indices, axis)
    flat = _scattered(base.reshape(-1), where, arguments.tensor("updates"), arguments.text("mode"))
    return flat.reshape(base.shape)


def _scatter(arguments: Arguments) -> Tensor:
    base, axis = arguments.tensor("data"), arguments.integer("axis")
    indices = _wrapped(arguments, arguments.tensor("indices"), base.shape[axis])
    where = torch.arange(base.numel()).reshape(base.shape).index_select(axis, indices.reshape(-1))
    flat = _scattered(base.reshape(-1), where, arguments.tensor("updates"), arguments.text("mode"))
    return flat.reshape(base.shape)


def _reverse_sequence(arguments: Arguments) -> Tensor:
    x, lengths = arguments.tensor("x"), arguments.tensor("lengths")
    along, batch = arguments.integer("seq_axis") % x.ndim, arguments.integer("batch_axis") % x.ndim
    position = torch.arange(x.shape[along]).reshape([-1 if axis == along else 1 for axis in range(x.ndim)])
    length = lengths.reshape([-1 if axis == batch else 1 for axis in range(x.ndim)])
    source = torch.where(position < length, length - 1 - position, position)
    return torch.take_along_dim(x, source.expand(x.shape), along)


def _one_hot(arguments: Arguments) -> Tensor:
    indices, size = arguments.tensor("indices"), arguments.integer("one_hot_vector_size")
    hot = indices.unsqueeze(-1) == torch.arange(size)
    out = torch.where(hot, arguments.tensor("on_value"), arguments.tensor("off_value"))
    return out.movedim(-1, arguments.integer("axis"))


def _non_zero(arguments: Arguments) -> Tensor:
    return torch.nonzero(arguments.tensor("x"))


INDEX: Final[Mapping[str, Operation]] = {
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "slice_update": _slice_update,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "scatter": _scatter,
    "scatter_along_axis": _scatter_along_axis,
    "scatter_nd": _scatter_nd,
    "reverse_sequence": _reverse_sequence,
    "one_hot": _one_hot,
    "non_zero": _non_zero,
}
