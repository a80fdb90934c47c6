"""Operations that work on each element alone: arithmetic, comparison, logic, activations, type changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from deploykit.targets.coreml.interpreter.arguments import Arguments, Operation, along_channels


def _unary(function: Callable[[Tensor], Tensor]) -> Operation:
    return lambda arguments: function(arguments.tensor("x"))


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operation:
    return lambda arguments: function(arguments.tensor("x"), arguments.tensor("y"))


def _clip(arguments: Arguments) -> Tensor:
    return arguments.tensor("x").clamp(arguments.number("alpha"), arguments.number("beta"))


def _threshold(arguments: Arguments) -> Tensor:
    return torch.maximum(arguments.tensor("x"), arguments.tensor("alpha"))


def _inverse(arguments: Arguments) -> Tensor:
    return 1.0 / (arguments.tensor("x") + arguments.tensor("epsilon"))


def _log(arguments: Arguments) -> Tensor:
    return torch.log(arguments.tensor("x") + arguments.tensor("epsilon"))


def _rsqrt(arguments: Arguments) -> Tensor:
    return torch.rsqrt(arguments.tensor("x") + arguments.tensor("epsilon"))


def _cast(arguments: Arguments) -> Tensor:
    # Narrower types (fp16, int8, ...) are applied where the result is stored, as for every operation.
    x, dtype = arguments.tensor("x"), arguments.text("dtype")
    if dtype.startswith("fp"):
        return x.to(torch.float32)
    return x != 0 if dtype == "bool" else x.to(torch.int64)


def _select(arguments: Arguments) -> Tensor:
    return torch.where(arguments.tensor("cond"), arguments.tensor("a"), arguments.tensor("b"))


def _real_div(x: Tensor, y: Tensor) -> Tensor:
    return x / y


def _leaky(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x >= 0, x, slope * x)


def _leaky_relu(arguments: Arguments) -> Tensor:
    return _leaky(arguments.tensor("x"), arguments.floating("alpha"))


def _prelu(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    return _leaky(x, along_channels(arguments.floating("alpha"), x.ndim))


def _clamped_relu(arguments: Arguments) -> Tensor:
    return _leaky_relu(arguments).clamp(max=arguments.number("beta"))


def _elu(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    return torch.where(x > 0, x, arguments.floating("alpha") * torch.expm1(x))


def _gelu(arguments: Arguments) -> Tensor:
    x, mode = arguments.tensor("x"), arguments.text("mode")
    if mode == "TANH_APPROXIMATION":
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


def _linear_activation(arguments: Arguments) -> Tensor:
    return arguments.tensor("x") * arguments.floating("alpha") + arguments.floating("beta")


def _scaled_tanh(arguments: Arguments) -> Tensor:
    return arguments.floating("alpha") * torch.tanh(arguments.tensor("x") * arguments.floating("beta"))


def _sigmoid_hard(arguments: Arguments) -> Tensor:
    return _linear_activation(arguments).clamp(0.0, 1.0)


def _softplus_parametric(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    alpha = along_channels(arguments.floating("alpha"), x.ndim)
    beta = along_channels(arguments.floating("beta"), x.ndim)
    return alpha * F.softplus(x * beta)


def _softmax(arguments: Arguments) -> Tensor:
    return torch.softmax(arguments.tensor("x"), dim=arguments.integer("axis"))


def _thresholded_relu(arguments: Arguments) -> Tensor:
    x = arguments.tensor("x")
    return torch.where(x >= arguments.floating("alpha"), x, torch.zeros_like(x))


ELEMENTWISE: Final[Mapping[str, Operation]] = {
    "abs": _unary(torch.abs),
    "acos": _unary(torch.acos),
    "asin": _unary(torch.asin),
    "atan": _unary(torch.atan),
    "atanh": _unary(torch.atanh),
    "ceil": _unary(torch.ceil),
    "cos": _unary(torch.cos),
    "cosh": _unary(torch.cosh),
    "erf": _unary(torch.erf),
    "exp": _unary(torch.exp),
    "exp2": _unary(torch.exp2),
    "floor": _unary(torch.floor),
    "identity": _unary(torch.clone),
    "logical_not": _unary(torch.logical_not),
    "relu": _unary(torch.relu),
    "relu6": _unary(F.relu6),
    "round": _unary(torch.round),
    "sigmoid": _unary(torch.sigmoid),
    "sign": _unary(torch.sign),
    "silu": _unary(F.silu),
    "sin": _unary(torch.sin),
    "sinh": _unary(torch.sinh),
    "softplus": _unary(F.softplus),
    "softsign": _unary(F.softsign),
    "sqrt": _unary(torch.sqrt),
    "square": _unary(torch.square),
    "tan": _unary(torch.tan),
    "tanh": _unary(torch.tanh),
    "add": _binary(torch.add),
    "equal": _binary(torch.eq),
    "floor_div": _binary(torch.floor_divide),
    "greater": _binary(torch.gt),
    "greater_equal": _binary(torch.ge),
    "less": _binary(torch.lt),
    "less_equal": _binary(torch.le),
    "logical_and": _binary(torch.logical_and),
    "logical_or": _binary(torch.logical_or),
    "logical_xor": _binary(torch.logical_xor),
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum),
    "mod": _binary(torch.remainder),
    "mul": _binary(torch.mul),
    "not_equal": _binary(torch.ne),
    "pow": _binary(torch.pow),
    "real_div": _binary(_real_div),
    "sub": _binary(torch.sub),
    "cast": _cast,
    "clip": _clip,
    "inverse": _inverse,
    "log": _log,
    "rsqrt": _rsqrt,
    "select": _select,
    "threshold": _threshold,
    "clamped_relu": _clamped_relu,
    "elu": _elu,
    "gelu": _gelu,
    "leaky_relu": _leaky_relu,
    "linear_activation": _linear_activation,
    "prelu": _prelu,
    "scaled_tanh": _scaled_tanh,
    "sigmoid_hard": _sigmoid_hard,
    "softmax": _softmax,
    "softplus_parametric": _softplus_parametric,
    "thresholded_relu": _thresholded_relu,
}
