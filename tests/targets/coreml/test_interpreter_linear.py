from __future__ import annotations

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, X, check, of, random
from scipy import special

N = np.random.default_rng(3).integers(-4, 4, (3, 4)).astype(np.int32)
MEAN, GAMMA, BETA = random(3, seed=1), random(3, seed=2), random(3, seed=3)
VARIANCE = random(3, seed=4, low=0.2, high=2.0)
LAST_GAMMA, LAST_BETA = random(4, 5, seed=5), random(4, 5, seed=6)


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
    of("linear", "int", lambda: N @ N.T, N, weight=N),
    of(
        "linear",
        "half weights",
        lambda: X[0] @ WEIGHT.astype(np.float16).T,
        X[0],
        "iOS17",
        weight=WEIGHT.astype(np.float16),
    ),
    of("matmul", "a vector", lambda: X[0, 0, 0] @ random(5, 2, seed=9), X[0, 0, 0], y=random(5, 2, seed=9)),
    Case(
        "einsum",
        "three axes",
        lambda x, y: mb.einsum(values=(x, y), equation="chw,whr->chr"),
        {"x": X[0], "y": random(5, 4, 6, seed=1)},
        lambda: np.einsum("chw,whr->chr", X[0], random(5, 4, 6, seed=1)),
        tolerance=1e-5,
    ),
    Case(
        "einsum",
        "broadcast",
        lambda x, y: mb.einsum(values=(x, y), equation="nchw,nwhu->nchu"),
        {"x": X, "y": random(1, 5, 1, 6, seed=1)},
        lambda: np.einsum("nchw,wu->nchu", X, random(1, 5, 1, 6, seed=1)[0, :, 0]),
        tolerance=1e-5,
    ),
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
    of(
        "layer_norm",
        "one axis, scaled",
        lambda: standardized((3,), 1e-5) * LAST_GAMMA[0] + LAST_BETA[0],
        axes=[-1],
        gamma=LAST_GAMMA[0],
        beta=LAST_BETA[0],
    ),
    of("layer_norm", "everything", lambda: standardized((0, 1, 2, 3), 1e-5), axes=[0, 1, 2, 3]),
    of(
        "instance_norm",
        "one spatial axis",
        lambda: (X[0] - X[0].mean(-1, keepdims=True)) / np.sqrt(X[0].var(-1, keepdims=True) + 1e-5),
        X[0],
    ),
    of("local_response_norm", "odd", lambda: locally_normalized(3, 1e-4, 0.75, 1.0), size=3),
    of("l2_norm", "three axes", lambda: X[0] / np.sqrt(np.square(X[0]).sum() + 1e-6), X[0]),
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

CASES = [*PRODUCTS, *NORMS]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("missing", ["mean", "variance", "gamma", "beta"])
def test_a_dropped_statistic_fails(missing: str) -> None:
    given = {"mean": MEAN, "variance": VARIANCE, "gamma": GAMMA, "beta": BETA}
    neutral = {"mean": 0, "variance": 1, "gamma": 1, "beta": 0}
    full = of("batch_norm", "", NORMS[0].expected, **given, epsilon=np.float32(1e-3))
    damaged = given | {missing: np.full(3, neutral[missing], np.float32)}
    check(full)
    with pytest.raises(AssertionError):
        check(of("batch_norm", "", NORMS[0].expected, **damaged, epsilon=np.float32(1e-3)))
