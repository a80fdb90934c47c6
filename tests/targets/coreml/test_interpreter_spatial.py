from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random

from deploykit.targets.coreml.interpreter.ops_spatial import SPATIAL

Pads = Sequence[tuple[int, int]]


def same(sizes: Sequence[int], extents: Sequence[int], strides: Sequence[int], lower: bool = False) -> Pads:
    """The padding after which the output has ceil(size / stride) elements."""
    pads = []
    for size, extent, stride in zip(sizes, extents, strides, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + extent - size)
        small, large = total // 2, math.ceil(total / 2)
        pads.append((large, small) if lower else (small, large))
    return pads


def padded(x: np.ndarray, pads: Pads, value: float = 0.0) -> np.ndarray:
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def convolved(
    x: np.ndarray, weight: np.ndarray, pads: Pads, strides: Sequence[int], dilations: Sequence[int], groups: int = 1
) -> np.ndarray:
    """The convolution as its definition says, one kernel position at a time, in float64."""
    x, weight = padded(x, pads).astype(np.float64), weight.astype(np.float64)
    kernel, per_group = weight.shape[2:], weight.shape[1]
    sizes = [
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    out = np.zeros((x.shape[0], weight.shape[0], *sizes))
    per_output = weight.shape[0] // groups
    for position in itertools.product(*(range(k) for k in kernel)):
        window = tuple(
            slice(p * dilation, p * dilation + (size - 1) * stride + 1, stride)
            for p, dilation, size, stride in zip(position, dilations, sizes, strides, strict=True)
        )
        for group in range(groups):
            taken = x[(slice(None), slice(group * per_group, (group + 1) * per_group), *window)]
            rows = slice(group * per_output, (group + 1) * per_output)
            out[:, rows] += np.einsum("nc...,oc->no...", taken, weight[(rows, slice(None), *position)])
    return out


X = random(2, 4, 7, 9)
DENSE, DEPTHWISE = random(6, 4, 3, 2, seed=1), random(8, 1, 3, 3, seed=2)
GROUPED = random(6, 2, 2, 3, seed=3)
BIAS = random(6, seed=4)


def _conv(
    label: str,
    weight: np.ndarray,
    pads: Pads,
    strides: Sequence[int] = (1, 1),
    dilations: Sequence[int] = (1, 1),
    groups: int = 1,
    x: np.ndarray = X,
    bias: np.ndarray | None = None,
    target: str = "iOS16",
    **padding: Any,
) -> Case:
    def build(x: Any) -> Any:
        extra = {} if bias is None else {"bias": bias}
        return mb.conv(x=x, weight=weight, strides=strides, dilations=dilations, groups=groups, **padding, **extra)

    def expected() -> np.ndarray:
        out = convolved(x, weight, pads, strides, dilations, groups)
        return out if bias is None else out + bias.reshape([1, -1, *[1] * (x.ndim - 2)])

    return Case("conv", label, build, {"x": x}, expected, target, tolerance=1e-5)


CONVOLUTIONS = [
    _conv("valid", DENSE, [(0, 0), (0, 0)], bias=BIAS, pad_type="valid", target="iOS15"),
    _conv("custom, uneven", DENSE, [(1, 2), (0, 3)], pad_type="custom", pad=[1, 2, 0, 3]),
    _conv("custom, strided", DENSE, [(1, 1), (2, 2)], (2, 3), bias=BIAS, pad_type="custom", pad=[1, 1, 2, 2]),
    _conv("same, strided", DENSE, same((7, 9), (3, 2), (2, 2)), (2, 2), pad_type="same"),
    _conv("same, dilated", DENSE, same((7, 9), (5, 4), (1, 1)), dilations=(2, 3), pad_type="same"),
    _conv("same_lower", DENSE, same((7, 9), (3, 2), (2, 1), lower=True), (2, 1), pad_type="same_lower"),
    _conv("depthwise", DEPTHWISE, [(2, 2), (2, 2)], dilations=(2, 2), groups=4, pad_type="custom", pad=[2] * 4),
    _conv("grouped", GROUPED, [(0, 0), (1, 1)], groups=2, bias=BIAS, pad_type="custom", pad=[0, 0, 1, 1]),
    _conv(
        "one axis",
        random(3, 4, 5, seed=5),
        [(2, 1)],
        (2,),
        (1,),
        x=random(2, 4, 11),
        pad_type="custom",
        pad=[2, 1],
    ),
    _conv(
        "three axes",
        random(2, 2, 2, 3, 2, seed=6),
        [(0, 0)] * 3,
        (1, 2, 1),
        (1, 1, 2),
        x=random(1, 2, 4, 6, 5),
        pad_type="valid",
    ),
]


def _conv_transpose(
    label: str,
    expected: Callable[[], Any],
    x: np.ndarray,
    weight: np.ndarray,
    **parameters: Any,
) -> Case:
    def build(x: Any) -> Any:
        return mb.conv_transpose(x=x, weight=weight, **parameters)

    return Case("conv_transpose", label, build, {"x": x}, expected, tolerance=1e-5)


SMALL = random(2, 4, 3, 5, seed=7)
UP, UP_DEPTHWISE = random(4, 3, 4, 3, seed=8), random(4, 1, 4, 4, seed=9)


def _spread(x: np.ndarray, weight: np.ndarray, strides: Sequence[int], groups: int = 1) -> np.ndarray:
    """The transposed convolution as its definition says: each input element adds its kernel to the output."""
    per_group = x.shape[1] // groups
    kernel, width = weight.shape[2:], weight.shape[1]
    sizes = [(size - 1) * stride + k for size, stride, k in zip(x.shape[2:], strides, kernel, strict=True)]
    out = np.zeros((x.shape[0], width * groups, *sizes))
    for channel in range(x.shape[1]):
        rows = slice(channel // per_group * width, (channel // per_group + 1) * width)
        for i, j in itertools.product(range(x.shape[2]), range(x.shape[3])):
            top, left = i * strides[0], j * strides[1]
            out[:, rows, top : top + kernel[0], left : left + kernel[1]] += (
                x[:, channel, i, j, None, None, None].astype(np.float64) * weight[channel]
            )
    return out


UP_BIAS = random(3, seed=10)
TRANSPOSED = [
    _conv_transpose(
        "valid",
        lambda: _spread(SMALL, UP, (2, 3)) + UP_BIAS[:, None, None],
        SMALL,
        UP,
        bias=UP_BIAS,
        strides=[2, 3],
        pad_type="valid",
    ),
    _conv_transpose(
        "custom, uneven",
        lambda: _spread(SMALL, UP, (2, 2))[:, :, 1:-2, 0:-1],
        SMALL,
        UP,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 2, 0, 1],
    ),
    _conv_transpose(
        "same",
        lambda: _spread(SMALL, UP, (2, 2))[:, :, 1:-1, 0:-1],
        SMALL,
        UP,
        strides=[2, 2],
        pad_type="same",
    ),
    _conv_transpose(
        "depthwise",
        lambda: _spread(SMALL, UP_DEPTHWISE, (2, 2), 4)[:, :, 1:-1, 1:-1],
        SMALL,
        UP_DEPTHWISE,
        strides=[2, 2],
        groups=4,
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    _conv_transpose(
        "grouped",
        lambda: _spread(SMALL, UP, (1, 2), 2),
        SMALL,
        UP,
        strides=[1, 2],
        groups=2,
        pad_type="valid",
    ),
    _conv_transpose(
        "output shape beyond the last contribution",
        lambda: (
            np.pad(_spread(SMALL, UP, (2, 2)), [(0, 0)] * 2 + [(0, 1), (0, 2)])[:, :, 1:, :] + UP_BIAS[:, None, None]
        ),
        SMALL,
        UP,
        bias=UP_BIAS,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 0, 0, 0],
        output_shape=[2, 3, 8, 13],
    ),
    _conv_transpose(
        "dilated",
        lambda: F.conv_transpose2d(torch.tensor(SMALL), torch.tensor(UP), stride=2, padding=1, dilation=2),
        SMALL,
        UP,
        strides=[2, 2],
        dilations=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    _conv_transpose(
        "one axis",
        lambda: F.conv_transpose1d(torch.tensor(SMALL[:, :, 0]), torch.tensor(UP[:, :, 0]), stride=2),
        SMALL[:, :, 0],
        UP[:, :, 0],
        strides=[2],
        pad_type="valid",
    ),
]


def pooled(
    x: np.ndarray,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Pads,
    reduce: Callable[[np.ndarray, int], np.ndarray],
    ceil_mode: bool = False,
) -> np.ndarray:
    """Each window on its own: ``reduce`` gets its real elements and how many the padding adds."""
    counts = []
    for size, k, stride, (before, after) in zip(x.shape[2:], kernel, strides, pads, strict=True):
        steps = (size + before + after - k) / stride
        count = (math.ceil(steps) if ceil_mode else math.floor(steps)) + 1
        if ceil_mode and (count - 1) * stride >= size + before:
            count -= 1
        counts.append(count)
    out = np.zeros((*x.shape[:2], *counts))
    for place in itertools.product(*(range(count) for count in counts)):
        inside, slots = [], 1
        for index, size, k, stride, (before, after) in zip(place, x.shape[2:], kernel, strides, pads, strict=True):
            first = index * stride - before
            inside.append(slice(max(first, 0), min(first + k, size)))
            slots *= min(first + k, size + after) - first
        window = x[(slice(None), slice(None), *inside)].reshape(*x.shape[:2], -1)
        out[(slice(None), slice(None), *place)] = reduce(window, slots)
    return out


def _largest(window: np.ndarray, slots: int) -> np.ndarray:
    return window.max(-1)


def _mean_with_padding(window: np.ndarray, slots: int) -> np.ndarray:
    return window.sum(-1) / slots


def _mean_without_padding(window: np.ndarray, slots: int) -> np.ndarray:
    return window.mean(-1)


def _length(window: np.ndarray, slots: int) -> np.ndarray:
    return np.sqrt(np.square(window).sum(-1))


def _pool(
    name: str,
    label: str,
    reduce: Callable[[np.ndarray, int], np.ndarray],
    pads: Pads,
    kernel: Sequence[int] = (3, 2),
    strides: Sequence[int] = (2, 2),
    x: np.ndarray = X,
    **parameters: Any,
) -> Case:
    def build(x: Any) -> Any:
        return getattr(mb, name)(x=x, kernel_sizes=kernel, strides=strides, **parameters)

    ceil_mode = parameters.get("ceil_mode", False)
    return Case(name, label, build, {"x": x}, lambda: pooled(x, kernel, strides, pads, reduce, ceil_mode), "iOS16")


NONE: Pads = [(0, 0), (0, 0)]
ONE: Pads = [(1, 1), (1, 1)]
POOLS = [
    _pool("max_pool", "valid", _largest, NONE, pad_type="valid"),
    _pool("max_pool", "custom, all negative", _largest, ONE, x=X - 5, pad_type="custom", pad=[1] * 4),
    _pool("max_pool", "ceil", _largest, ONE, ceil_mode=True, pad_type="custom", pad=[1] * 4),
    _pool("max_pool", "same", _largest, same((7, 9), (3, 2), (2, 2)), pad_type="same"),
    _pool("max_pool", "same_lower", _largest, same((7, 9), (3, 2), (2, 2), True), pad_type="same_lower"),
    _pool("max_pool", "one axis", _largest, [(1, 0)], (3,), (2,), X[:, :, 0], pad_type="custom", pad=[1, 0]),
    _pool("avg_pool", "valid", _mean_with_padding, NONE, pad_type="valid"),
    _pool("avg_pool", "counts padding", _mean_with_padding, ONE, pad_type="custom", pad=[1] * 4),
    _pool(
        "avg_pool",
        "leaves padding out",
        _mean_without_padding,
        ONE,
        exclude_padding_from_average=True,
        pad_type="custom",
        pad=[1] * 4,
    ),
    _pool("avg_pool", "ceil", _mean_with_padding, NONE, (2, 2), (2, 2), ceil_mode=True, pad_type="valid"),
    _pool(
        "avg_pool",
        "ceil, counts padding",
        _mean_with_padding,
        ONE,
        ceil_mode=True,
        pad_type="custom",
        pad=[1] * 4,
    ),
    _pool(
        "avg_pool",
        "ceil, leaves padding out",
        _mean_without_padding,
        ONE,
        (3, 3),
        (3, 2),
        ceil_mode=True,
        exclude_padding_from_average=True,
        pad_type="custom",
        pad=[1] * 4,
    ),
    _pool(
        "avg_pool",
        "same, leaves padding out",
        _mean_without_padding,
        same((7, 9), (3, 2), (2, 2)),
        exclude_padding_from_average=True,
        pad_type="same",
    ),
    _pool(
        "avg_pool",
        "three axes",
        _mean_with_padding,
        [(0, 1)] * 3,
        (2, 2, 2),
        (1, 2, 1),
        random(1, 2, 3, 4, 3),
        pad_type="custom",
        pad=[0, 1] * 3,
    ),
    _pool("l2_pool", "custom", _length, ONE, pad_type="custom", pad=[1] * 4),
]

CASES = [*CONVOLUTIONS, *TRANSPOSED, *POOLS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} == set(SPATIAL)


@pytest.mark.parametrize(
    "wrong",
    [
        _conv("padding on the other side", DENSE, same((7, 9), (3, 2), (2, 1)), (2, 1), pad_type="same_lower"),
        _pool("avg_pool", "other divisor", _mean_without_padding, ONE, pad_type="custom", pad=[1] * 4),
    ],
    ids=str,
)
def test_a_wrong_rule_fails(wrong: Case) -> None:
    with pytest.raises(AssertionError):
        check(wrong)
