from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random
from scipy import special

from deploykit.targets.coreml.interpreter.ops_linear import LINEAR
from deploykit.targets.coreml.interpreter.ops_reduce import REDUCE

X = random(2, 3, 4, 5)
N = np.random.default_rng(3).integers(-4, 4, (3, 4)).astype(np.int32)
MEAN, GAMMA, BETA = random(3, seed=1), random(3, seed=2), random(3, seed=3)
VARIANCE = random(3, seed=4, low=0.2, high=2.0)
LAST_GAMMA, LAST_BETA = random(4, 5, seed=5), random(4, 5, seed=6)


def of(
    name: str, label: str, expected: Callable[[], Any], x: np.ndarray = X, target: str = "iOS15", **more: Any
) -> Case:
    return Case(name, label, lambda x: getattr(mb, name)(x=x, **more), {"x": x}, expected, target, 1e-5)


def channels(values: np.ndarray) -> np.ndarray:
    return values[None, :, None, None]


def standardized(axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    x = X.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def locally_normalized(size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    out = np.empty_like(X)
    for channel in range(3):
        near = X[:, max(0, channel - size // 2) : channel + (size - 1) // 2 + 1]
        out[:, channel] = X[:, channel] / (k + alpha / size * np.square(near).sum(1)) ** beta
    return out


WEIGHT, BIAS = random(6, 5, seed=7), random(6, seed=8)
Q, K, V = random(2, 3, 4, 5), random(2, 3, 6, 5, seed=1), random(2, 3, 6, 7, seed=2)
MASK = np.where(random(4, 6, seed=3) > 0, 0.0, -3.0).astype(np.float32)

PRODUCTS = [
    of("linear", "", lambda: X[0] @ WEIGHT.T + BIAS, X[0], weight=WEIGHT, bias=BIAS),
    of("linear", "no bias", lambda: X[0, 0] @ WEIGHT.T, X[0, 0], weight=WEIGHT),
    of("matmul", "", lambda: X @ random(3, 5, 2, seed=9), y=random(3, 5, 2, seed=9)),
    of(
        "matmul",
        "transposed",
        lambda: X.swapaxes(-1, -2) @ random(2, 4, seed=9).T,
        y=random(2, 4, seed=9),
        transpose_x=True,
        transpose_y=True,
    ),
    of("matmul", "int", lambda: N @ N.T, N, y=N, transpose_y=True),
    Case(
        "einsum",
        "",
        lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        {"x": X, "y": random(2, 5, 4, 6, seed=1)},
        lambda: np.einsum("nchw,nwhu->nchu", X, random(2, 5, 4, 6, seed=1)),
        tolerance=1e-5,
    ),
    *[
        Case(
            "scaled_dot_product_attention",
            label,
            lambda q, k, v, mask=mask: mb.scaled_dot_product_attention(query=q, key=k, value=v, **mask),
            {"q": Q, "k": K, "v": V},
            lambda bias=bias: special.softmax(Q @ K.swapaxes(-1, -2) / np.sqrt(5) + bias, -1) @ V,
            "iOS18",
            1e-5,
        )
        for label, mask, bias in (
            ("", {}, 0.0),
            ("added mask", {"attn_mask": MASK}, MASK),
            ("boolean mask", {"attn_mask": MASK == 0}, np.where(MASK == 0, 0.0, -np.inf)),
        )
    ],
]

NORMS = [
    of(
        "batch_norm",
        "",
        lambda: channels(GAMMA) * (X - channels(MEAN)) / np.sqrt(channels(VARIANCE) + 1e-3) + channels(BETA),
        mean=MEAN,
        variance=VARIANCE,
        gamma=GAMMA,
        beta=BETA,
        epsilon=np.float32(1e-3),
    ),
    of(
        "batch_norm",
        "statistics only",
        lambda: (X - channels(MEAN)) / np.sqrt(channels(VARIANCE) + 1e-5),
        mean=MEAN,
        variance=VARIANCE,
    ),
    of(
        "instance_norm",
        "",
        lambda: standardized((2, 3), 1e-2) * channels(GAMMA) + channels(BETA),
        gamma=GAMMA,
        beta=BETA,
        epsilon=np.float32(1e-2),
    ),
    of("instance_norm", "statistics only", lambda: standardized((2, 3), 1e-5)),
    of(
        "layer_norm",
        "last axes",
        lambda: standardized((2, 3), 1e-3) * LAST_GAMMA + LAST_BETA,
        axes=[2, -1],
        gamma=LAST_GAMMA,
        beta=LAST_BETA,
        epsilon=np.float32(1e-3),
    ),
    of("layer_norm", "channels", lambda: standardized((1,), 1e-5), axes=[1]),
    of("l2_norm", "", lambda: X / np.sqrt(np.square(X).sum((1, 2, 3), keepdims=True) + 0.1), epsilon=np.float32(0.1)),
    of(
        "local_response_norm",
        "",
        lambda: locally_normalized(2, 0.5, 0.75, 2.0),
        size=2,
        alpha=0.5,
        beta=0.75,
        k=2.0,
    ),
]

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


DESCENDING = np.argsort(-X, 1)[:, :2]
LEADING_ZERO = np.concatenate([np.zeros((2, 1, 4, 5)), np.cumsum(X, 1)[:, :-1]], 1)

REDUCED = [
    *[_reduced(name, "spatial", (2, 3), True) for name in REDUCTIONS],
    *[_reduced(name, "one, dropped", (-3,), False) for name in REDUCTIONS],
    _reduced("reduce_mean", "everything", None, True),
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
    _topk("values", "iOS16", lambda: np.take_along_axis(X, DESCENDING, 1), return_indices=False),
]

CASES = [*PRODUCTS, *NORMS, *REDUCED]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_every_operation_has_a_case() -> None:
    assert {case.operation for case in CASES} == set(LINEAR) | set(REDUCE)


@pytest.mark.parametrize("missing", ["mean", "variance", "gamma", "beta"])
def test_a_dropped_statistic_fails(missing: str) -> None:
    given = {"mean": MEAN, "variance": VARIANCE, "gamma": GAMMA, "beta": BETA}
    neutral = {"mean": 0, "variance": 1, "gamma": 1, "beta": 0}
    full = of("batch_norm", "", NORMS[0].expected, **given, epsilon=np.float32(1e-3))
    damaged = given | {missing: np.full(3, neutral[missing], np.float32)}
    check(full)
    with pytest.raises(AssertionError):
        check(of("batch_norm", "", NORMS[0].expected, **damaged, epsilon=np.float32(1e-3)))
