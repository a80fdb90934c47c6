from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, X, check, of
from scipy import special

N = np.random.default_rng(3).integers(-4, 4, (3, 4)).astype(np.int32)

REDUCTIONS: dict[str, Callable[..., Any]] = {
    "reduce_l1_norm": lambda x, axis, keepdims: np.abs(x).sum(axis, keepdims=keepdims),
    "reduce_l2_norm": lambda x, axis, keepdims: np.sqrt(np.square(x).sum(axis, keepdims=keepdims)),
    "reduce_log_sum": lambda x, axis, keepdims: np.log(x.sum(axis, keepdims=keepdims)),
    "reduce_log_sum_exp": lambda x, axis, keepdims: special.logsumexp(x, axis, keepdims=keepdims),
    "reduce_max": np.max,
    "reduce_mean": np.mean,
    "reduce_min": np.min,
    "reduce_prod": np.prod,
    "reduce_sum": np.sum,
    "reduce_sum_square": lambda x, axis, keepdims: np.square(x).sum(axis, keepdims=keepdims),
}
POSITIVE = X + 3


def _reduced(name: str, label: str, axes: tuple[int, ...] | None, keep: bool) -> Case:
    more = {} if axes is None else {"axes": axes}
    return of(
        name,
        label,
        lambda: REDUCTIONS[name](POSITIVE, axis=axes, keepdims=keep),
        POSITIVE,
        keep_dims=keep,
        **more,
    )


def _topk(label: str, target: str, expected: Callable[[], Any], **more: Any) -> Case:
    return of("topk", label, expected, X, target, k=2, axis=1, **more)


PERMUTED = np.random.default_rng(1).permutation(9).astype(np.int32)
DESCENDING = np.argsort(-X, 1)[:, :2]
LEADING_ZERO = np.concatenate([np.zeros((2, 1, 4, 5)), np.cumsum(X, 1)[:, :-1]], 1)

CASES = [
    *[_reduced(name, "spatial", (2, 3), True) for name in REDUCTIONS],
    *[_reduced(name, "one, dropped", (-3,), False) for name in REDUCTIONS],
    _reduced("reduce_mean", "everything", None, True),
    of("reduce_max", "int", lambda: N.max(0), N, axes=[0]),
    of("reduce_min", "int", lambda: N.min(0), N, axes=[0]),
    of("reduce_prod", "int", lambda: N.prod(0), N, axes=[0]),
    of("reduce_sum_square", "int", lambda: np.square(N).sum(0), N, axes=[0]),
    of("reduce_sum", "int", lambda: N.sum(1), N, axes=[1]),
    of("reduce_argmax", "", lambda: X.argmax(1), axis=1),
    of("reduce_argmax", "kept", lambda: X.argmax(2)[:, :, None], axis=-2, keep_dims=True),
    of("reduce_argmin", "", lambda: X.argmin(-1)),
    of("argsort", "", lambda: np.argsort(-X, 2), axis=2),
    of("argsort", "ascending", lambda: np.argsort(X, -1), ascending=True),
    of("cumsum", "", lambda: np.cumsum(X, 1), axis=1),
    of("cumsum", "exclusive", lambda: LEADING_ZERO, axis=1, exclusive=True),
    of("cumsum", "reverse", lambda: np.cumsum(X[:, ::-1], 1)[:, ::-1], axis=1, reverse=True),
    _topk("", "iOS15", lambda: [np.take_along_axis(X, DESCENDING, 1), DESCENDING]),
    _topk("ascending", "iOS15", lambda: [np.sort(X, 1)[:, :2], np.argsort(X, 1)[:, :2]], ascending=True),
    _topk("unsorted", "iOS16", lambda: [np.take_along_axis(X, DESCENDING, 1), DESCENDING], sort=False),
    Case(
        "topk",
        "indices of 16 bits",
        lambda x: mb.cast(x=mb.topk(x=x, k=2, axis=1, output_indices_dtype="uint16")[1], dtype="int32"),
        {"x": X},
        lambda: DESCENDING,
        "iOS17",
    ),
    of(
        "cumsum", "int, exclusive and reverse", lambda: np.cumsum(N[::-1], 0)[::-1] - N, N, exclusive=True, reverse=True
    ),
    of("reduce_argmax", "int", lambda: N.argmax(0), N, axis=0),
    of("argsort", "int", lambda: np.argsort(PERMUTED), PERMUTED, ascending=True),
    _topk("values", "iOS16", lambda: np.take_along_axis(X, DESCENDING, 1), return_indices=False),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_another_axis_fails() -> None:
    wrong = of("reduce_sum", "", lambda: X.sum((1, 2), keepdims=True), axes=[2, 3], keep_dims=True)
    with pytest.raises(AssertionError):
        check(wrong)
