from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random
from interpreter_references import onnx, same

Pads = Sequence[tuple[int, int]]


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
    _conv("nothing but the weight", DENSE, [(0, 0), (0, 0)], target="iOS15"),
    Case(
        "conv",
        "weight and bias given when it runs",
        lambda x, weight, bias: mb.conv(x=x, weight=weight, bias=bias, strides=[2, 1], pad_type="valid"),
        {"x": X, "weight": DENSE, "bias": BIAS},
        lambda: convolved(X, DENSE, [(0, 0), (0, 0)], (2, 1), (1, 1)) + BIAS[:, None, None],
        "iOS17",
        1e-5,
    ),
    Case(
        "conv",
        "as ONNX has it",
        lambda x: mb.conv(x=x, weight=GROUPED, groups=2, strides=[2, 1], pad_type="custom", pad=[1, 0, 2, 1]),
        {"x": X},
        lambda: onnx("Conv", X, GROUPED, group=2, strides=[2, 1], pads=[1, 2, 0, 1]),
        tolerance=1e-5,
    ),
    Case(
        "conv",
        "half weights",
        lambda x: mb.conv(x=x, weight=DENSE.astype(np.float16), pad_type="valid"),
        {"x": X},
        lambda: convolved(X, DENSE.astype(np.float16), [(0, 0), (0, 0)], (1, 1), (1, 1)),
        "iOS17",
        1e-5,
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


def _spread(
    x: np.ndarray, weight: np.ndarray, strides: Sequence[int], groups: int = 1, dilations: Sequence[int] = (1, 1, 1)
) -> np.ndarray:
    """The transposed convolution as its definition says: each input element adds its kernel to the output."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    per_group, width, spatial = x.shape[1] // groups, weight.shape[1], list(range(x.ndim - 2))
    sizes = [(x.shape[2 + i] - 1) * strides[i] + (weight.shape[2 + i] - 1) * dilations[i] + 1 for i in spatial]
    out = np.zeros((x.shape[0], width * groups, *sizes))
    for position in np.ndindex(weight.shape[2:]):
        first = [position[i] * dilations[i] for i in spatial]
        places = tuple(slice(first[i], first[i] + (x.shape[2 + i] - 1) * strides[i] + 1, strides[i]) for i in spatial)
        for group in range(groups):
            taken = slice(group * per_group, (group + 1) * per_group)
            rows = slice(group * width, (group + 1) * width)
            out[(slice(None), rows, *places)] += np.einsum(
                "nc...,co->no...", x[:, taken], weight[(taken, slice(None), *position)]
            )
    return out


VOLUME, UP_VOLUME = random(1, 2, 2, 3, 2), random(2, 3, 2, 3, 2, seed=11)
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
        lambda: _spread(SMALL, UP, (2, 2), dilations=(2, 3))[:, :, 1:-1, 1:-1],
        SMALL,
        UP,
        strides=[2, 2],
        dilations=[2, 3],
        pad_type="custom",
        pad=[1, 1, 1, 1],
    ),
    _conv_transpose(
        "one axis",
        lambda: _spread(SMALL[:, :, 0], UP[:, :, 0], (2,)),
        SMALL[:, :, 0],
        UP[:, :, 0],
        strides=[2],
        pad_type="valid",
    ),
    _conv_transpose("three axes", lambda: _spread(VOLUME, UP_VOLUME, (1, 2, 2)), VOLUME, UP_VOLUME, strides=[1, 2, 2]),
    _conv_transpose(
        "output padding, as ONNX has it",
        lambda: onnx(
            "ConvTranspose", SMALL, UP, UP_BIAS, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1], group=1
        ),
        SMALL,
        UP,
        bias=UP_BIAS,
        strides=[2, 2],
        pad_type="custom",
        pad=[1, 1, 1, 1],
        output_shape=[2, 3, 7, 10],
    ),
    _conv_transpose(
        "same, kernel below the stride",
        lambda: np.pad(_spread(SMALL, UP, (5, 5)), [(0, 0)] * 2 + [(0, 1), (0, 2)]),
        SMALL,
        UP,
        strides=[5, 5],
        pad_type="same",
    ),
    Case(
        "conv_transpose",
        "weight given when it runs",
        lambda x, weight: mb.conv_transpose(x=x, weight=weight, strides=[2, 2], pad_type="valid"),
        {"x": SMALL, "weight": UP},
        lambda: _spread(SMALL, UP, (2, 2)),
        "iOS17",
        1e-5,
    ),
]

CASES = [*CONVOLUTIONS, *TRANSPOSED]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    "wrong",
    [
        _conv("padding on the other side", DENSE, same((7, 9), (3, 2), (2, 1)), (2, 1), pad_type="same_lower"),
        _conv_transpose(
            "one group for two", lambda: _spread(SMALL, UP, (1, 2), 2), SMALL, UP[:, ::-1], strides=[1, 2], groups=2
        ),
    ],
    ids=str,
)
def test_a_wrong_rule_fails(wrong: Case) -> None:
    with pytest.raises(AssertionError):
        check(wrong)
