from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random
from interpreter_references import onnx, same

Pads = Sequence[tuple[int, int]]
X = random(2, 4, 7, 9)


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


def _by_onnx(
    name: str, node: str, kernel: list[int], strides: list[int], pads: list[int], ceil_mode: bool, **more: bool
) -> Case:
    """A second opinion: the padding and the ceiling rule of ONNX's reference evaluator."""
    counted = {"count_include_pad": int(not more["excluded"])} if more else {}
    average = {"exclude_padding_from_average": more["excluded"]} if more else {}

    def build(x: Any) -> Any:
        pad = [amount for amount in pads for _ in range(2)]
        fixed = {"kernel_sizes": kernel, "strides": strides, "ceil_mode": ceil_mode}
        return getattr(mb, name)(x=x, **fixed, pad_type="custom", pad=pad, **average)

    def expected() -> Any:
        fixed = {"kernel_shape": kernel, "strides": strides, "ceil_mode": int(ceil_mode)}
        return onnx(node, X, **fixed, pads=pads * 2, **counted)

    return Case(name, f"onnx {kernel} {strides} {more}", build, {"x": X}, expected)


VOLUME = random(1, 2, 4, 3, 5)
NONE: Pads = [(0, 0), (0, 0)]
ONE: Pads = [(1, 1), (1, 1)]
CASES = [
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
    _pool("max_pool", "three axes", _largest, [(0, 0)] * 3, (2, 1, 2), (1, 1, 2), VOLUME, pad_type="valid"),
    _pool("max_pool", "ceil, one axis", _largest, [(0, 0)], (2,), (2,), X[:, :, 0], ceil_mode=True, pad_type="valid"),
    _pool("l2_pool", "custom", _length, ONE, pad_type="custom", pad=[1] * 4),
    _pool("l2_pool", "valid", _length, NONE, pad_type="valid"),
    _pool("l2_pool", "one axis, ceil", _length, [(0, 0)], (2,), (2,), X[:, :, 0], ceil_mode=True, pad_type="valid"),
    _by_onnx("max_pool", "MaxPool", [3, 3], [2, 2], [1, 1], ceil_mode=True),
    _by_onnx("max_pool", "MaxPool", [2, 3], [2, 1], [0, 1], ceil_mode=False),
    _by_onnx("avg_pool", "AveragePool", [3, 2], [1, 2], [1, 1], ceil_mode=False, excluded=False),
    _by_onnx("avg_pool", "AveragePool", [3, 2], [2, 3], [1, 1], ceil_mode=False, excluded=True),
    Case(
        "avg_pool",
        "default strides",
        lambda x: mb.avg_pool(x=x, kernel_sizes=[2, 3], pad_type="valid"),
        {"x": X},
        lambda: np.lib.stride_tricks.sliding_window_view(X, (2, 3), (2, 3)).mean((-1, -2)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


@pytest.mark.parametrize(
    "wrong",
    [
        _pool("avg_pool", "other divisor", _mean_without_padding, ONE, pad_type="custom", pad=[1] * 4),
        _pool("max_pool", "other side", _largest, same((7, 9), (3, 2), (2, 2)), pad_type="same_lower"),
    ],
    ids=str,
)
def test_a_wrong_rule_fails(wrong: Case) -> None:
    with pytest.raises(AssertionError):
        check(wrong)
