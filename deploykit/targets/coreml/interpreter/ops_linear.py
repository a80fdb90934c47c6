"""Matrix products and normalisations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation


def _linear(arguments: Arguments) -> Tensor:
    return F.linear(arguments.tensor("x"), arguments.tensor("weight"), arguments.optional("bias"))


def _matmul(arguments: Arguments) -> Tensor:
    x, y = arguments.tensor("x"), arguments.tensor("y")
    if arguments.flag("transpose_x") and x.ndim > 1:
        x = x.transpose(-1, -2)
    if arguments.flag("transpose_y") and y.ndim > 1:
        y = y.transpose(-1, -2)
    return torch.matmul(x, y)


def _einsum(arguments: Arguments) -> Tensor:
    out: Tensor = torch.einsum(arguments.text("equation"), *arguments.tensors("values"))
    return out


def _attention(arguments: Arguments) -> Tensor:
    query, key = arguments.tensor("query"), arguments.tensor("key")
    scores = torch.matmul(query, key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    mask = arguments.optional("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return torch.matmul(torch.softmax(scores, dim=-1), arguments.tensor("value"))


def _scale_and_shift(arguments: Arguments, x: Tensor, shape: list[int]) -> Tensor:
    gamma, beta = arguments.optional("gamma"), arguments.optional("beta")
    if gamma is not None:
        x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


def _batch_norm(arguments: Arguments) -> Tensor:
    return F.batch_norm(
        arguments.tensor("x"),
        arguments.tensor("mean"),
        arguments.tensor("variance"),
        arguments.optional("gamma"),
        arguments.optional("beta"),
        training=False,
        eps=arguments.number("epsilon"),
    )


def _standardized(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / torch.sqrt(torch.square(centred).mean(axes, keepdim=True) + epsilon)


def _instance_norm(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    out = _standardized(x, list(range(2, x.ndim)), arguments.number("epsilon"))
    return _scale_and_shift(arguments, out, [1, -1, *[1] * (x.ndim - 2)])


def _layer_norm(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    axes = sorted(axis % x.ndim for axis in arguments.integers("axes"))
    out = _standardized(x, axes, arguments.number("epsilon"))
    return _scale_and_shift(arguments, out, [x.shape[axis] if axis in axes else 1 for axis in range(x.ndim)])


def _l2_norm(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    squares = torch.square(x).sum([-3, -2, -1], keepdim=True)
    return x / torch.sqrt(squares + arguments.number("epsilon"))


def _local_response_norm(arguments: Arguments) -> Tensor:
    return F.local_response_norm(
        arguments.tensor("x"),
        arguments.integer("size"),
        arguments.number("alpha"),
        arguments.number("beta"),
        arguments.number("k"),
    )


LINEAR: Final[Mapping[str, Operation]] = {
    "linear": _linear,
    "matmul": _matmul,
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "l2_norm": _l2_norm,
    "local_response_norm": _local_response_norm,
}
