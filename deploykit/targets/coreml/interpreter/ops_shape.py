"""Operations that move elements without changing them: shapes, order of axes, joining, splitting, padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation


def _reshape(arguments: Arguments) -> Tensor:
    x, shape = arguments.tensor("x"), arguments.integers("shape")
    # A 0 takes the size of x at the same distance from the end, 1 where x has no such axis.
    for distance in range(1, len(shape) + 1):
        if shape[-distance] == 0:
            shape[-distance] = x.shape[-distance] if distance <= x.ndim else 1
    return x.reshape(shape)


def _reshape_like(arguments: Arguments) -> Tensor:
    shape: list[int] = []
    bounds = zip(
        arguments.tensors("ref_tensors"),
        arguments.tensors("begins"),
        arguments.tensors("ends"),
        arguments.tensors("end_masks"),
        strict=True,
    )
    for reference, begin, end, to_end in bounds:
        shape += reference.shape[int(begin) :] if bool(to_end) else reference.shape[int(begin) : int(end)]
    return arguments.tensor("x").reshape(shape)


def _expand_dims(arguments: Arguments) -> Tensor:
    x, axes = arguments.tensor("x"), arguments.integers("axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    axes = arguments.integers("axes") if arguments.has("axes") else list(range(x.ndim))
    return x.squeeze(axes)


def _flatten2d(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    return x.reshape(math.prod(x.shape[: arguments.integer("axis")]), -1)


def _transpose(arguments: Arguments) -> Tensor:
    return arguments.tensor("x").permute(arguments.integers("perm"))


def _reverse(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    return x.flip(arguments.integers("axes") if arguments.has("axes") else list(range(x.ndim)))


def _concat(arguments: Arguments) -> Tensor:
    values, axis = arguments.tensors("values"), arguments.integer("axis")
    if values[0].ndim == 0:
        return torch.stack(values)
    if not arguments.flag("interleave"):
        return torch.cat(values, axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def _stack(arguments: Arguments) -> Tensor:
    return torch.stack(arguments.tensors("values"), arguments.integer("axis"))


def _split(arguments: Arguments) -> Sequence[Tensor]:
    x, axis = arguments.tensor("x"), arguments.integer("axis")
    if arguments.has("split_sizes"):
        bounds = list(itertools.accumulate(arguments.integers("split_sizes")))[:-1]
        return torch.tensor_split(x, bounds, axis)
    return torch.tensor_split(x, arguments.integer("num_splits"), axis)


def _tile(arguments: Arguments) -> Tensor:
    return arguments.tensor("x").tile(arguments.integers("reps"))


def _pad(arguments: Arguments) -> Tensor:
    x, pad, mode = arguments.tensor("x"), arguments.integers("pad"), arguments.text("mode")
    pairs = list(zip(pad[::2], pad[1::2], strict=True))
    if mode == "constant":
        flat = [amount for pair in reversed(pairs) for amount in pair]
        return F.pad(x, flat, value=arguments.number("constant_val"))
    for axis, pair in zip(range(x.ndim - len(pairs), x.ndim), pairs, strict=True):
        if any(pair):
            source = np.pad(np.arange(x.shape[axis]), pair, mode="edge" if mode == "replicate" else "reflect")
            x = x.index_select(axis, torch.from_numpy(source))
    return x


def _crop(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    top, bottom = arguments.integers("crop_height")
    left, right = arguments.integers("crop_width")
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def _pixel_shuffle(arguments: Arguments) -> Tensor:
    return F.pixel_shuffle(arguments.tensor("x"), arguments.integer("upscale_factor"))


def _pixel_unshuffle(arguments: Arguments) -> Tensor:
    return F.pixel_unshuffle(arguments.tensor("x"), arguments.integer("downscale_factor"))


def _depth_to_space(arguments: Arguments) -> Tensor:
    # The block index is the slow part of the channel (TensorFlow's order), unlike in pixel_shuffle.
    x, block = arguments.tensor("x"), arguments.integer("block_size")
    batch, channels, height, width = x.shape
    out = x.reshape(batch, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return out.reshape(batch, channels // block**2, height * block, width * block)


def _space_to_depth(arguments: Arguments) -> Tensor:
    x, block = arguments.tensor("x"), arguments.integer("block_size")
    batch, channels, height, width = x.shape
    out = x.reshape(batch, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return out.reshape(batch, channels * block**2, height // block, width // block)


def _space_to_batch(arguments: Arguments) -> Tensor:
    x, (rows, columns) = arguments.tensor("x"), arguments.integers("block_shape")
    top, bottom, left, right = arguments.integers("paddings")
    x = F.pad(x, (left, right, top, bottom))
    batch, channels, height, width = x.shape
    out = x.reshape(batch, channels, height // rows, rows, width // columns, columns)
    return out.permute(3, 5, 0, 1, 2, 4).reshape(-1, channels, height // rows, width // columns)


def _batch_to_space(arguments: Arguments) -> Tensor:
    x, (rows, columns) = arguments.tensor("x"), arguments.integers("block_shape")
    top, bottom, left, right = arguments.integers("crops")
    batch, channels, height, width = x.shape
    out = x.reshape(rows, columns, batch // (rows * columns), channels, height, width)
    out = out.permute(2, 3, 4, 0, 5, 1).reshape(-1, channels, height * rows, width * columns)
    return out[..., top : height * rows - bottom, left : width * columns - right]


def _sliding_windows(arguments: Arguments) -> Tensor:
    x, axis = arguments.tensor("x"), arguments.integer("axis") % arguments.tensor("x").ndim
    return x.unfold(axis, arguments.integer("size"), arguments.integer("stride")).movedim(-1, axis + 1)


def _shape(arguments: Arguments) -> Tensor:
    return torch.tensor(arguments.tensor("x").shape, dtype=torch.int64)


def _fill(arguments: Arguments) -> Tensor:
    return arguments.tensor("value").expand(arguments.integers("shape"))


def _fill_like(arguments: Arguments) -> Tensor:
    return arguments.tensor("value").expand(arguments.tensor("ref_tensor").shape)


def _range_1d(arguments: Arguments) -> Tensor:
    start, end, step = (arguments.tensor(name).item() for name in ("start", "end", "step"))
    return torch.arange(start, end, step)


def _band_part(arguments: Arguments) -> Tensor:
    x, lower, upper = arguments.tensor("x"), arguments.integer("lower"), arguments.integer("upper")
    below = torch.arange(x.shape[-2])[:, None] - torch.arange(x.shape[-1])
    kept = torch.ones_like(below, dtype=torch.bool)
    if lower >= 0:
        kept &= below <= lower
    if upper >= 0:
        kept &= -below <= upper
    return torch.where(kept, x, torch.zeros_like(x))


SHAPE: Final[Mapping[str, Operation]] = {
    "reshape": _reshape,
    "reshape_like": _reshape_like,
    "expand_dims": _expand_dims,
    "squeeze": _squeeze,
    "flatten2d": _flatten2d,
    "transpose": _transpose,
    "reverse": _reverse,
    "concat": _concat,
    "stack": _stack,
    "split": _split,
    "tile": _tile,
    "pad": _pad,
    "crop": _crop,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
    "depth_to_space": _depth_to_space,
    "space_to_depth": _space_to_depth,
    "space_to_batch": _space_to_batch,
    "batch_to_space": _batch_to_space,
    "sliding_windows": _sliding_windows,
    "shape": _shape,
    "fill": _fill,
    "fill_like": _fill_like,
    "range_1d": _range_1d,
    "band_part": _band_part,
}
