"""Compressed weights (``constexpr_*``) and quantized activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation

_RANGE = {"int8": (-128, 127), "uint8": (0, 255)}


def _along_axis(arguments: Arguments, name: str, rank: int) -> Tensor:
    """Return a scalar or vector parameter in a shape that broadcasts along ``axis``; 0 where it is absent."""
    parameter = arguments.optional(name)
    if parameter is None:
        return torch.zeros(())
    parameter = parameter.to(torch.float32)
    if parameter.ndim == 0:
        return parameter
    shape = [1] * rank
    shape[arguments.integer("axis")] = -1
    return parameter.reshape(shape)


def _dequantized(arguments: Arguments, name: str) -> Tensor:
    stored = arguments.tensor(name)
    scale = _along_axis(arguments, "scale", stored.ndim)
    return scale * (stored.to(torch.float32) - _along_axis(arguments, "zero_point", stored.ndim))


def _constexpr_affine_dequantize(arguments: Arguments) -> Tensor:
    return _dequantized(arguments, "quantized_data")


def _dequantize(arguments: Arguments) -> Tensor:
    return _dequantized(arguments, "input")


def _quantize(arguments: Arguments) -> Tensor:
    x = arguments.tensor("input")
    steps = torch.round(x / _along_axis(arguments, "scale", x.ndim))
    low, high = _RANGE[arguments.text("output_dtype")]
    return (steps + _along_axis(arguments, "zero_point", x.ndim)).clamp(low, high).to(torch.int64)


def _constexpr_cast(arguments: Arguments) -> Tensor:
    return arguments.floating("source_val")


def _unpacked(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return ``count`` unsigned numbers of ``bits`` bits each, packed into bytes from the lowest bit up."""
    stream = np.unpackbits(packed.numpy().astype(np.uint8), bitorder="little")[: bits * count]
    return torch.from_numpy(stream.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits)))


def _repeated(x: Tensor, shape: torch.Size) -> Tensor:
    """Return ``x`` with each element repeated over the block of ``shape`` that it stands for."""
    for axis, size in enumerate(shape):
        x = x.repeat_interleave(size // x.shape[axis], axis)
    return x


def _looked_up(indices: Tensor, table: Tensor, axis: int | None) -> Tensor:
    """Return the table entries (..., palettes, vector) for ``indices``, vectors laid out along ``axis``."""
    rank = indices.ndim
    groups = table.shape[:rank]
    group = _repeated(torch.arange(groups.numel()).reshape(groups), indices.shape)
    vectors = table.flatten(0, rank - 1)[group, indices]
    if axis is None:
        return vectors.squeeze(-1)
    axis %= rank
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


def _vector_axis(arguments: Arguments) -> int | None:
    return arguments.integer("vector_axis") if arguments.has("vector_axis") else None


def _constexpr_lut_to_dense(arguments: Arguments) -> Tensor:
    table = arguments.tensor("lut")
    if not arguments.has("shape"):
        return _looked_up(arguments.tensor("indices"), table, _vector_axis(arguments))
    # The form of iOS 16 and 17: one table, indices packed into bytes.
    shape = arguments.integers("shape")
    bits = (table.numel() - 1).bit_length()
    return table[_unpacked(arguments.tensor("indices"), bits, int(np.prod(shape)))].reshape(shape)


def _filled(mask: Tensor, nonzero: Tensor) -> Tensor:
    """Return a tensor with ``nonzero`` (D,) where ``mask`` is set, in row-major order, and 0 elsewhere."""
    out = torch.zeros(mask.shape, dtype=nonzero.dtype)
    out[mask != 0] = nonzero
    return out


def _constexpr_sparse_to_dense(arguments: Arguments) -> Tensor:
    mask = arguments.tensor("mask")
    if arguments.has("shape"):
        # The form of iOS 16 and 17: one bit for each element.
        shape = arguments.integers("shape")
        mask = _unpacked(mask, 1, int(np.prod(shape))).reshape(shape)
    return _filled(mask, arguments.tensor("nonzero_data"))


def _shifted_and_scaled(arguments: Arguments, stored: Tensor) -> Tensor:
    stored = stored.to(torch.float32)
    if arguments.has("offset"):
        stored = stored - _repeated(arguments.floating("offset"), stored.shape)
    return stored * _repeated(arguments.floating("scale"), stored.shape)


def _constexpr_blockwise_shift_scale(arguments: Arguments) -> Tensor:
    return _shifted_and_scaled(arguments, arguments.tensor("data"))


def _constexpr_sparse_blockwise_shift_scale(arguments: Arguments) -> tuple[Tensor, Tensor]:
    mask = arguments.tensor("data_mask")
    dense = _shifted_and_scaled(arguments, _filled(mask, arguments.tensor("nonzero_data")))
    return mask, dense[mask != 0]


def _constexpr_lut_to_sparse(arguments: Arguments) -> tuple[Tensor, Tensor]:
    mask, axis = arguments.tensor("indices_mask"), _vector_axis(arguments)
    table = arguments.tensor("lut")
    dense = _looked_up(_filled(mask, arguments.tensor("indices_nonzero_data")), table, axis)
    if axis is not None:
        mask = mask.repeat_interleave(table.shape[-1], axis)
    return mask, dense[mask != 0]


COMPRESSED: Final[Mapping[str, Operation]] = {
    "constexpr_affine_dequantize": _constexpr_affine_dequantize,
    "constexpr_blockwise_shift_scale": _constexpr_blockwise_shift_scale,
    "constexpr_cast": _constexpr_cast,
    "constexpr_lut_to_dense": _constexpr_lut_to_dense,
    "constexpr_lut_to_sparse": _constexpr_lut_to_sparse,
    "constexpr_sparse_blockwise_shift_scale": _constexpr_sparse_blockwise_shift_scale,
    "constexpr_sparse_to_dense": _constexpr_sparse_to_dense,
    "dequantize": _dequantize,
    "quantize": _quantize,
}
