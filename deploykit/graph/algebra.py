"""The algebra of folding and merging: pure functions of float64 tensors, written once for every network.

Weight axes are ``out, in_per_group, kh, kw`` (``in, out_per_group, kh, kw`` for transposed convolutions). Nothing
here rounds and nothing here knows a graph. Source: RCRNet, equations 2 to 4, for folding BatchNorm into a
convolution, centring the small kernel in the large one, and writing the identity as a kernel; the composition of
a 1x1 with a k x k convolution follows from both being linear.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class BatchNormStats:
    """What an evaluated BatchNorm holds, each of shape (channels,).

    ``gamma`` and ``beta`` are None where the layer has no affine part.
    """

    gamma: Tensor | None
    beta: Tensor | None
    mean: Tensor
    var: Tensor
    eps: float

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return scale and shift, each (channels,), with ``bn(x) = scale * x + shift`` (RCRNet, equation 2)."""
        scale = torch.rsqrt(self.var + self.eps)
        if self.gamma is not None:
            scale = scale * self.gamma
        shift = -self.mean * scale
        if self.beta is not None:
            shift = shift + self.beta
        return scale, shift


@dataclass(frozen=True)
class Kernel:
    """A convolution without its geometry: weight (out, in / groups, kh, kw), bias (out,) and groups."""

    weight: Tensor
    bias: Tensor
    groups: int

    @property
    def is_pointwise(self) -> bool:
        """Whether the kernel is 1x1."""
        return self.weight.shape[2:] == (1, 1)

    @property
    def is_depthwise(self) -> bool:
        """Whether each output channel reads the input channel of the same number alone."""
        return self.groups == self.weight.shape[0] and self.weight.shape[1] == 1


def fold_conv_batch_norm(weight: Tensor, bias: Tensor | None, bn: BatchNormStats) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the one convolution equal to ``bn(conv(x))``.

    ``weight`` is (out, in_per_group, *kernel) of any rank, ``bias`` (out,) or None. Groups need no special case:
    BatchNorm is per output channel, and axis 0 is every output channel. Source: RCRNet, equations 2 to 4.
    """
    scale, shift = bn.affine()
    folded = scale_outputs(weight, scale)
    return folded, shift if bias is None else scale * bias + shift


def fold_linear_batch_norm(weight: Tensor, bias: Tensor | None, bn: BatchNormStats) -> tuple[Tensor, Tensor]:
    """Return the weight (out, in) and bias (out,) of the one linear layer equal to ``bn(linear(x))``.

    A linear layer is a convolution without a kernel: the same equations hold (RCRNet, equations 2 to 4).
    """
    return fold_conv_batch_norm(weight, bias, bn)


def fold_transposed_batch_norm(
    weight: Tensor, bias: Tensor | None, bn: BatchNormStats, groups: int
) -> tuple[Tensor, Tensor]:
    """Return the weight and bias of the one transposed convolution equal to ``bn(conv_transpose(x))``.

    ``weight`` is (in, out_per_group, *kernel): output channel ``g * out_per_group + o`` lies on axis 1 of the
    g-th block of inputs. Source: RCRNet, equations 2 to 4, with the output channel on the other axis.
    """
    scale, shift = bn.affine()
    inputs, out_per_group, *kernel = weight.shape
    blocks = weight.reshape(groups, inputs // groups, out_per_group, *kernel)
    factor = scale.reshape(groups, 1, out_per_group, *(1 for _ in kernel))
    return (blocks * factor).reshape(weight.shape), shift if bias is None else scale * bias + shift


def scale_outputs(weight: Tensor, scale: Tensor) -> Tensor:
    """Return ``weight`` (out, in_per_group, ...) with output channel ``o`` multiplied by ``scale[o]``."""
    return weight * scale.reshape(-1, *(1 for _ in weight.shape[1:]))


def scale_inputs(weight: Tensor, scale: Tensor, groups: int) -> Tensor:
    """Return ``weight`` (out, in_per_group, kh, kw) with input channel ``i`` multiplied by ``scale[i]``, (in,)."""
    out, in_per_group = weight.shape[:2]
    per_group = scale.reshape(groups, 1, in_per_group, 1, 1)
    return (weight.reshape(groups, out // groups, *weight.shape[1:]) * per_group).reshape(weight.shape)


def identity_kernel(channels: int, groups: int) -> Tensor:
    """Return the 1x1 kernel (channels, channels / groups, 1, 1) that copies its input, in float64.

    ``groups`` is 1 for the dense form and ``channels`` for the depthwise one. Source: RCRNet, equation 4.
    """
    return regroup(torch.ones(channels, 1, 1, 1, dtype=torch.float64), channels, groups)


def average_pool_kernel(channels: int, height: int, width: int, divisor: int | None = None) -> Tensor:
    """Return the depthwise kernel (channels, 1, height, width) that averages its window, in float64.

    ``divisor`` replaces the number of elements of the window where the pooling names one.
    """
    value = 1.0 / (divisor or height * width)
    return torch.full((channels, 1, height, width), value, dtype=torch.float64)


def regroup(weight: Tensor, groups: int, fewer: int) -> Tensor:
    """Return ``weight`` (out, in / groups, kh, kw) as the equal kernel (out, in / fewer, kh, kw) in ``fewer`` groups.

    ``fewer`` divides ``groups``; each new group is block diagonal in the old ones, zero elsewhere.
    """
    if fewer == groups:
        return weight
    out, in_per_group, height, width = weight.shape
    joined = groups // fewer
    blocks = weight.new_zeros(fewer, joined, out // groups, joined, in_per_group, height, width)
    index = torch.arange(joined)
    source = weight.reshape(fewer, joined, out // groups, in_per_group, height, width)
    blocks[:, index, :, index] = source.transpose(0, 1)
    return blocks.reshape(out, joined * in_per_group, height, width)


def place_kernel(
    weight: Tensor, size: tuple[int, int], offset: tuple[int, int], step: tuple[int, int] = (1, 1)
) -> Tensor:
    """Return ``weight`` (out, in_per_group, kh, kw) in a kernel of zeros of ``size``.

    Tap (i, j) lands on ``(offset[0] + i * step[0], offset[1] + j * step[1])``. Centred is
    ``offset = ((size[0] - kh) // 2, (size[1] - kw) // 2)`` with step 1. Source: RCRNet, equation 3.
    """
    placed = weight.new_zeros(*weight.shape[:2], *size)
    height, width = weight.shape[2:]
    rows = slice(offset[0], offset[0] + (height - 1) * step[0] + 1, step[0])
    columns = slice(offset[1], offset[1] + (width - 1) * step[1] + 1, step[1])
    placed[:, :, rows, columns] = weight
    return placed


def compose(first: Kernel, second: Kernel) -> Kernel:
    """Return the one convolution equal to ``second(first(x))``, where one of the two is 1x1.

    Exact where ``second`` does not pad, or the bias of ``first`` is zero: padding is zero where the first
    convolution would have given its bias. The groups of the result are the most that hold both.

    Raises:
        ValueError: both kernels are larger than 1x1.
    """
    if not (first.is_pointwise or second.is_pointwise):
        raise ValueError("one of two composed kernels must be 1x1")
    through = second.weight.sum((2, 3)).reshape(second.groups, -1, second.weight.shape[1])
    bias = second.bias + (through @ first.bias.reshape(second.groups, -1, 1)).flatten()
    if second.is_pointwise and second.is_depthwise:
        return Kernel(scale_outputs(first.weight, second.weight.flatten()), bias, first.groups)
    if first.is_pointwise and first.is_depthwise:
        return Kernel(scale_inputs(second.weight, first.weight.flatten(), second.groups), bias, second.groups)
    groups = math.gcd(first.groups, second.groups)
    inner, outer = (_by_group(kernel, groups) for kernel in (first, second))
    if first.is_pointwise:
        weight = torch.einsum("gomhw,gmi->goihw", outer, inner[..., 0, 0])
    else:
        weight = torch.einsum("gom,gmihw->goihw", outer[..., 0, 0], inner)
    return Kernel(weight.flatten(0, 1), bias, groups)


def swap_channel_axes(weight: Tensor, groups: int) -> Tensor:
    """Return the ``weight`` (in, out_per_group, kh, kw) of a transposed convolution as (out, in_per_group, kh, kw).

    It is its own inverse. The taps stay where they are.
    """
    outer, inner, *kernel = weight.shape
    blocks = weight.reshape(groups, outer // groups, inner, *kernel).transpose(1, 2)
    return blocks.reshape(groups * inner, outer // groups, *kernel)


def _by_group(kernel: Kernel, groups: int) -> Tensor:
    """Return the weight of ``kernel`` in ``groups`` groups, as (groups, out_per_group, in_per_group, kh, kw)."""
    weight = regroup(kernel.weight, kernel.groups, groups)
    return weight.reshape(groups, -1, *weight.shape[1:])
