from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil import Builder as mb
from interpreter_programs import Case, check, random
from scipy import special

X = random(2, 3, 4, 5)
UNIT = random(2, 3, 4, low=-0.9, high=0.9)
POSITIVE = random(2, 3, 4, low=0.1, high=3.0)
A, B = random(2, 3, 4, seed=1), random(3, 1, seed=2)
M, N = (np.random.default_rng(seed).integers(-9, 9, (3, 4)).astype(np.int32) for seed in (3, 4))
SLOPES = np.array([0.25, -0.5, 1.5], dtype=np.float32)
SHIFTS = np.array([0.5, 1.0, 2.0], dtype=np.float32)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x.astype(np.float64))


def broad(values: np.ndarray) -> np.ndarray:
    return values[None, :, None, None]


UNARY: dict[str, tuple[np.ndarray, Callable[[np.ndarray], Any]]] = {
    "abs": (X, np.abs),
    "acos": (UNIT, np.arccos),
    "asin": (UNIT, np.arcsin),
    "atan": (X, np.arctan),
    "atanh": (UNIT, np.arctanh),
    "ceil": (X, np.ceil),
    "cos": (X, np.cos),
    "cosh": (X, np.cosh),
    "erf": (X, special.erf),
    "exp": (X, np.exp),
    "exp2": (X, np.exp2),
    "floor": (X, np.floor),
    "identity": (X, lambda x: x),
    "relu": (X, lambda x: np.maximum(x, 0)),
    "relu6": (4 * X, lambda x: np.clip(x, 0, 6)),
    "round": (np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.4], np.float32), np.round),
    "sigmoid": (X, special.expit),
    "sign": (np.array([-2.0, 0.0, 3.0], np.float32), np.sign),
    "silu": (X, lambda x: x * special.expit(x)),
    "sin": (X, np.sin),
    "sinh": (X, np.sinh),
    "softplus": (20 * X, softplus),
    "softsign": (X, lambda x: x / (1 + np.abs(x))),
    "sqrt": (POSITIVE, np.sqrt),
    "square": (X, np.square),
    "tan": (UNIT, np.tan),
    "tanh": (X, np.tanh),
}

BINARY: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {
    "add": np.add,
    "equal": np.equal,
    "floor_div": np.floor_divide,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "less": np.less,
    "less_equal": np.less_equal,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "mod": np.mod,
    "mul": np.multiply,
    "not_equal": np.not_equal,
    "real_div": np.divide,
    "sub": np.subtract,
}


def _number(result: Any) -> Any:
    # A program returns no booleans.
    return mb.cast(x=result, dtype="fp32")


def _unary(name: str) -> Case:
    array, reference = UNARY[name]
    return Case(name, "", lambda x: getattr(mb, name)(x=x), {"x": array}, lambda: reference(array))


def _binary(name: str, label: str, x: np.ndarray, y: np.ndarray) -> Case:
    def build(x: Any, y: Any) -> Any:
        return _number(getattr(mb, name)(x=x, y=y))

    return Case(name, label, build, {"x": x, "y": y}, lambda: BINARY[name](x, y))


def _logical(name: str, reference: Callable[..., Any]) -> Case:
    def build(x: Any, y: Any) -> Any:
        return _number(getattr(mb, name)(x=mb.greater(x=x, y=0), y=mb.greater(x=y, y=0)))

    return Case(name, "", build, {"x": M, "y": N}, lambda: reference(M > 0, N > 0))


def _of_x(name: str, expected: Callable[[], Any], x: np.ndarray = X, label: str = "", **parameters: Any) -> Case:
    return Case(name, label, lambda x: getattr(mb, name)(x=x, **parameters), {"x": x}, expected)


def _leaky(x: np.ndarray, slope: Any) -> np.ndarray:
    return np.where(x >= 0, x, slope * x)


WHOLE = np.array([0, 1, 17, 100, 127], np.float32)


def _narrowed(kind: str) -> Case:
    """A cast to a type of whole numbers, what the type can hold, and to the sum of two of its values."""
    signed = -WHOLE if kind.startswith("i") else WHOLE

    def build(x: Any) -> Any:
        return mb.cast(x=mb.cast(x=x, dtype=kind), dtype="fp32"), mb.cast(x=mb.cast(x=x, dtype=kind), dtype="bool")

    def numbered(x: Any) -> Any:
        number, truth = build(x)
        return number, _number(truth)

    return Case("cast", f"to {kind} and back", numbered, {"x": signed}, lambda: [signed, signed != 0], "iOS17")


def _mixed(name: str, expected: Callable[[], Any], **parameters: Any) -> Case:
    """The form of iOS 17 on: parameters in half precision beside a float32 input."""
    halves = {key: np.asarray(value, np.float16) for key, value in parameters.items()}
    return Case(name, "half parameters", lambda x: getattr(mb, name)(x=x, **halves), {"x": X}, expected, "iOS17", 1e-5)


CASES = [
    _mixed("clamped_relu", lambda: np.minimum(_leaky(X, 0.25), 1.0), alpha=0.25, beta=1.0),
    _mixed("elu", lambda: np.where(X > 0, X, 0.75 * np.expm1(X)), alpha=0.75),
    _mixed("leaky_relu", lambda: _leaky(X, 0.125), alpha=0.125),
    _mixed("linear_activation", lambda: 2 * X + 0.5, alpha=2.0, beta=0.5),
    _mixed("prelu", lambda: _leaky(X, broad(SLOPES)), alpha=SLOPES),
    _mixed("scaled_tanh", lambda: 1.5 * np.tanh(0.5 * X), alpha=1.5, beta=0.5),
    _mixed("sigmoid_hard", lambda: np.clip(X / 8 + 0.5, 0, 1), alpha=0.125, beta=0.5),
    _mixed("softplus_parametric", lambda: broad(SLOPES) * softplus(X * broad(SHIFTS)), alpha=SLOPES, beta=SHIFTS),
    _mixed("thresholded_relu", lambda: np.where(X >= 0.5, X, 0), alpha=0.5),
    *[_unary(name) for name in UNARY],
    *[_binary(name, "float", A, B) for name in BINARY],
    *[_binary(name, "int", M, np.where(N == 0, 5, N).astype(np.int32)) for name in BINARY if name != "real_div"],
    Case("pow", "", lambda x, y: mb.pow(x=x, y=y), {"x": POSITIVE, "y": A}, lambda: POSITIVE**A),
    _logical("logical_and", np.logical_and),
    _logical("logical_or", np.logical_or),
    _logical("logical_xor", np.logical_xor),
    Case(
        "logical_not",
        "",
        lambda x: _number(mb.logical_not(x=mb.greater(x=x, y=0))),
        {"x": M},
        lambda: ~(M > 0),
    ),
    Case(
        "select",
        "",
        lambda c, a, b: mb.select(cond=mb.greater(x=c, y=0), a=a, b=b),
        {"c": M[:, :1], "a": A, "b": B},
        lambda: np.where(M[:, :1] > 0, A, B),
    ),
    Case("cast", "to int", lambda x: mb.cast(x=x, dtype="int32"), {"x": X}, lambda: np.trunc(X)),
    Case("cast", "to bool", lambda x: _number(mb.cast(x=x, dtype="bool")), {"x": M}, lambda: M != 0),
    Case(
        "cast",
        "to half and back",
        lambda x: mb.cast(x=mb.cast(x=x, dtype="fp16"), dtype="fp32"),
        {"x": X},
        lambda: X.astype(np.float16),
        tolerance=0.0,
    ),
    *[_narrowed(kind) for kind in ("int8", "uint8", "int16", "uint16", "int32")],
    _of_x("clip", lambda: np.clip(X, -0.5, 1.5), alpha=-0.5, beta=1.5),
    _of_x("threshold", lambda: np.maximum(X, 0.3), alpha=np.float32(0.3)),
    _of_x("inverse", lambda: 1 / (POSITIVE + 1e-4), POSITIVE, "default"),
    _of_x("inverse", lambda: 1 / (POSITIVE + 0.1), POSITIVE, "epsilon", epsilon=np.float32(0.1)),
    _of_x("log", lambda: np.log(POSITIVE), POSITIVE, "default"),
    _of_x("log", lambda: np.log(POSITIVE + 0.5), POSITIVE, "epsilon", epsilon=np.float32(0.5)),
    _of_x("rsqrt", lambda: 1 / np.sqrt(POSITIVE), POSITIVE, "default"),
    _of_x("rsqrt", lambda: 1 / np.sqrt(POSITIVE + 0.5), POSITIVE, "epsilon", epsilon=np.float32(0.5)),
    _of_x("clamped_relu", lambda: np.minimum(_leaky(X, 0.1), 1.0), alpha=0.1, beta=1.0),
    _of_x("elu", lambda: np.where(X > 0, X, 0.7 * np.expm1(X)), alpha=0.7),
    _of_x("gelu", lambda: X * special.ndtr(X), label="exact"),
    _of_x(
        "gelu",
        lambda: 0.5 * X * (1 + np.tanh(math.sqrt(2 / math.pi) * (X + 0.044715 * X**3))),
        label="tanh",
        mode="TANH_APPROXIMATION",
    ),
    _of_x("gelu", lambda: X * special.expit(1.702 * X), label="sigmoid", mode="SIGMOID_APPROXIMATION"),
    _of_x("leaky_relu", lambda: _leaky(X, 0.2), label="below 1", alpha=0.2),
    _of_x("leaky_relu", lambda: _leaky(X, 1.8), label="above 1", alpha=1.8),
    _of_x("linear_activation", lambda: 2 * X + 0.5, alpha=2.0, beta=0.5),
    _of_x("prelu", lambda: _leaky(X, broad(SLOPES)), alpha=SLOPES),
    _of_x("scaled_tanh", lambda: 1.7 * np.tanh(0.6 * X), alpha=1.7, beta=0.6),
    _of_x("sigmoid_hard", lambda: np.clip(X / 6 + 0.5, 0, 1), alpha=1 / 6, beta=0.5),
    _of_x("softplus_parametric", lambda: broad(SLOPES) * softplus(X * broad(SHIFTS)), alpha=SLOPES, beta=SHIFTS),
    _of_x("softmax", lambda: special.softmax(20 * X, -1), 20 * X, "last axis"),
    _of_x("softmax", lambda: special.softmax(X, 1), label="channels", axis=1),
    _of_x("thresholded_relu", lambda: np.where(X >= 0.4, X, 0), alpha=0.4),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operation_equals_its_reference(case: Case) -> None:
    check(case)


def test_a_wrong_slope_fails() -> None:
    wrong = _of_x("prelu", lambda: _leaky(X, broad(SLOPES + np.float32(1e-4))), alpha=SLOPES)
    with pytest.raises(AssertionError):
        check(wrong)
