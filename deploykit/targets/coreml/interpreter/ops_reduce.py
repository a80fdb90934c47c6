"""Reductions along axes, sorting and accumulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation


def _reduction(function: Callable[[Tensor, list[int]], Tensor]) -> Operation:
    """Return the operation for ``function``, which keeps the reduced axes with size 1."""

    def reduce(arguments: Arguments) -> Tensor:
        x = arguments.tensor("x")
        axes = arguments.integers("axes") if arguments.has("axes") else list(range(x.ndim))
        axes = sorted(axis % x.ndim for axis in axes)
        out = function(x, axes)
        if arguments.flag("keep_dims"):
            return out
        return out.reshape([size for axis, size in enumerate(out.shape) if axis not in axes])

    return reduce


def _sum(x: Tensor, axes: list[int]) -> Tensor:
    return x.sum(axes, keepdim=True)


def _mean(x: Tensor, axes: list[int]) -> Tensor:
    return x.to(torch.float32).mean(axes, keepdim=True)


def _product(x: Tensor, axes: list[int]) -> Tensor:
    for axis in axes:
        x = x.prod(axis, keepdim=True)
    return x


def _l2_norm(x: Tensor, axes: list[int]) -> Tensor:
    return torch.sqrt(_sum(torch.square(x), axes))


def _log_sum(x: Tensor, axes: list[int]) -> Tensor:
    return torch.log(_sum(x, axes))


def _log_sum_exp(x: Tensor, axes: list[int]) -> Tensor:
    return torch.logsumexp(x.to(torch.float32), axes, keepdim=True)


def _index(function: Callable[..., Tensor]) -> Operation:
    return lambda arguments: function(
        arguments.tensor("x"), dim=arguments.integer("axis"), keepdim=arguments.flag("keep_dims")
    )


def _argsort(arguments: Arguments) -> Tensor:
    return torch.argsort(
        arguments.tensor("x"),
        dim=arguments.integer("axis"),
        descending=not arguments.flag("ascending"),
        stable=True,
    )


def _topk(arguments: Arguments) -> Tensor | tuple[Tensor, Tensor]:
    x, axis, count = arguments.tensor("x"), arguments.integer("axis"), arguments.integer("k")
    descending = not arguments.flag("ascending")
    ordered, indices = torch.sort(x, dim=axis, descending=descending, stable=True)
    count = x.shape[axis] if count == -1 else count
    values = ordered.narrow(axis, 0, count)
    if not arguments.flag("return_indices", default=True):
        return values
    return values, indices.narrow(axis, 0, count)


def _cumsum(arguments: Arguments) -> Tensor:
    x, axis = arguments.tensor("x"), arguments.integer("axis")
    if arguments.flag("reverse"):
        x = x.flip(axis)
    if arguments.flag("exclusive"):
        x = torch.cat([torch.zeros_like(x.narrow(axis, 0, 1)), x.narrow(axis, 0, x.shape[axis] - 1)], axis)
    out = torch.cumsum(x, axis)
    return out.flip(axis) if arguments.flag("reverse") else out


REDUCE: Final[Mapping[str, Operation]] = {
    "reduce_argmax": _index(torch.argmax),
    "reduce_argmin": _index(torch.argmin),
    "reduce_l1_norm": _reduction(lambda x, axes: _sum(x.abs(), axes)),
    "reduce_l2_norm": _reduction(_l2_norm),
    "reduce_log_sum": _reduction(_log_sum),
    "reduce_log_sum_exp": _reduction(_log_sum_exp),
    "reduce_max": _reduction(lambda x, axes: x.amax(axes, keepdim=True)),
    "reduce_mean": _reduction(_mean),
    "reduce_min": _reduction(lambda x, axes: x.amin(axes, keepdim=True)),
    "reduce_prod": _reduction(_product),
    "reduce_sum": _reduction(_sum),
    "reduce_sum_square": _reduction(lambda x, axes: _sum(torch.square(x), axes)),
    "argsort": _argsort,
    "cumsum": _cumsum,
    "topk": _topk,
}
