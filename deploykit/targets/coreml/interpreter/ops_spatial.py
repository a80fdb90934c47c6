"""Convolution, transposed convolution and pooling over one, two or three spatial axes, channels first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation, along_channels

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_CONV_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
_MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_AVG_POOL = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

Pads = list[tuple[int, int]]


def _same_split(total: int, lower: bool) -> tuple[int, int]:
    # "same" puts the odd element after, as TensorFlow does; "same_lower" before.
    return (total - total // 2, total // 2) if lower else (total // 2, total - total // 2)


def _pads(arguments: Arguments, sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int]) -> Pads:
    """Return (before, after) for each axis of ``sizes``, for windows that span ``extents``."""
    kind = arguments.text("pad_type")
    if kind == "custom":
        pad = arguments.integers("pad")
        return list(zip(pad[::2], pad[1::2], strict=True))
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    return [
        _same_split(max(0, (-(-size // stride) - 1) * stride + extent - size), kind == "same_lower")
        for size, extent, stride in zip(sizes, extents, strides, strict=True)
    ]


def _pad(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """Return ``x`` with its last axes padded, or cropped where a pad is negative."""
    flat = [amount for pair in reversed(pads) for amount in pair]
    return F.pad(x, flat, value=value) if any(flat) else x


def _extents(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]


def _conv(arguments: Arguments) -> Tensor:
    x, weight = arguments.tensor("x"), arguments.tensor("weight")
    strides, dilations = arguments.integers("strides"), arguments.integers("dilations")
    pads = _pads(arguments, x.shape[2:], _extents(weight.shape[2:], dilations), strides)
    inside = [before if before == after else 0 for before, after in pads]
    outside = [(0, 0) if before == after else (before, after) for before, after in pads]
    out: Tensor = _CONV[x.ndim - 2](
        _pad(x, outside),
        weight,
        arguments.optional("bias"),
        strides,
        inside,
        dilations,
        arguments.integer("groups"),
    )
    return out


def _conv_transpose(arguments: Arguments) -> Tensor:
    x, weight = arguments.tensor("x"), arguments.tensor("weight")
    strides, dilations = arguments.integers("strides"), arguments.integers("dilations")
    whole: Tensor = _CONV_TRANSPOSE[x.ndim - 2](x, weight, None, strides, 0, 0, arguments.integer("groups"), dilations)
    sizes, kind = whole.shape[2:], arguments.text("pad_type")
    if kind == "custom":
        pad = arguments.integers("pad")
        crops = list(zip(pad[::2], pad[1::2], strict=True))
    else:
        crops = [(0, 0)] * len(sizes)
    target = [size - before - after for size, (before, after) in zip(sizes, crops, strict=True)]
    if arguments.has("output_shape"):
        target = arguments.integers("output_shape")[2:]
    elif kind.startswith("same"):
        target = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)]
    if kind.startswith("same"):
        crops = [
            _same_split(max(0, size - wanted), kind == "same_lower") for size, wanted in zip(sizes, target, strict=True)
        ]
    # What lies beyond the last contribution (torch's output_padding) is zero before the bias.
    out = _pad(
        whole,
        [(-before, wanted - size + before) for size, wanted, (before, _) in zip(sizes, target, crops, strict=True)],
    )
    bias = arguments.optional("bias")
    return out if bias is None else out + along_channels(bias, out.ndim)


class _Windows:
    """The windows of a pooling operation: its padding, and what the ceiling rule adds at the end."""

    def __init__(self, arguments: Arguments) -> None:
        self.x = arguments.tensor("x")
        self.kernel = arguments.integers("kernel_sizes")
        self.strides = arguments.integers("strides")
        self.pads = _pads(arguments, self.x.shape[2:], self.kernel, self.strides)
        self.extra = [0] * len(self.kernel)
        if arguments.flag("ceil_mode"):
            self.extra = [self._beyond_last(axis) for axis in range(len(self.kernel))]

    def _beyond_last(self, axis: int) -> int:
        size, kernel, stride = self.x.shape[2 + axis], self.kernel[axis], self.strides[axis]
        before, after = self.pads[axis]
        padded = size + before + after
        count = -(-(padded - kernel) // stride) + 1
        # A window may not start in the padding at the end.
        if (count - 1) * stride >= size + before and before + after > 0:
            count -= 1
        return max(0, (count - 1) * stride + kernel - padded)

    def padded(self, x: Tensor, padding: float, beyond: float) -> Tensor:
        """Return ``x`` with ``padding`` around it and ``beyond`` where only the ceiling rule reaches."""
        out = _pad(x, self.pads, padding)
        return _pad(out, [(0, extra) for extra in self.extra], beyond)

    def average(self, x: Tensor, padding: float = 0.0, beyond: float = 0.0) -> Tensor:
        """Return the mean over each whole window."""
        out: Tensor = _AVG_POOL[len(self.kernel)](self.padded(x, padding, beyond), self.kernel, self.strides)
        return out


def _max_pool(arguments: Arguments) -> Tensor:
    windows = _Windows(arguments)
    padded = windows.padded(windows.x, -torch.inf, -torch.inf)
    out: Tensor = _MAX_POOL[len(windows.kernel)](padded, windows.kernel, windows.strides)
    return out


def _avg_pool(arguments: Arguments) -> Tensor:
    windows = _Windows(arguments)
    out = windows.average(windows.x)
    padded = any(before or after for before, after in windows.pads)
    excluded = arguments.flag("exclude_padding_from_average")
    if not any(windows.extra) and not (padded and excluded):
        return out
    counted = windows.average(torch.ones_like(windows.x[:1, :1]), padding=0.0 if excluded else 1.0)
    return out / counted


def _l2_pool(arguments: Arguments) -> Tensor:
    windows = _Windows(arguments)
    count = 1
    for size in windows.kernel:
        count *= size
    return torch.sqrt(windows.average(torch.square(windows.x)) * count)


SPATIAL: Final[Mapping[str, Operation]] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "avg_pool": _avg_pool,
    "l2_pool": _l2_pool,
    "max_pool": _max_pool,
}
