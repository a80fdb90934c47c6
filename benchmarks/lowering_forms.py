"""The constructs that targets can compute in several exact forms, as small networks, for lowering_costs.py.

Each stands between convolutions, as in the networks: a runtime joins an activation with the convolution before it
and keeps its own layout between convolutions, so that an operation measured alone costs something else. A form is
either passes on the captured construct or, where no pass writes it, a network of its own with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[Any, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """One construct at one size: ``plain`` is the network as PyTorch has it, ``forms`` compute the same otherwise."""

    construct: str
    name: str
    shape: tuple[int, ...]
    plain: Callable[[], nn.Module]
    forms: dict[str, Callable[[], nn.Module]] = field(default_factory=dict)


class _Computes(nn.Module):
    """A function of an image and of named constants."""

    def __init__(self, function: Function, constants: dict[str, Tensor]) -> None:
        super().__init__()
        self.function = function
        for name, value in constants.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.function(self, x)
        return result


class _Between(nn.Module):
    """A 1x1 convolution, the construct and another 1x1 convolution; the same weights each time."""

    def __init__(self, channels: int, function: Function, constants: dict[str, Tensor], after: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.before = nn.Conv2d(channels, channels, 1)
            self.after = nn.Conv2d(after, after, 1)
        self.construct = _Computes(function, constants)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self.construct(self.before(x)))
        return result


def _case(
    construct: str, name: str, shape: tuple[int, ...], constants: dict[str, Tensor], after: int = 0, **forms: Function
) -> Case:
    """Return the case whose first form is the plain one."""

    def network(function: Function) -> Callable[[], nn.Module]:
        return lambda: _Between(shape[1], function, constants, after or shape[1])

    (_, plain), *others = forms.items()
    return Case(construct, name, shape, network(plain), {other: network(function) for other, function in others})


def _noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape) + sum(shape))) * 0.3


def _image(values: Tensor) -> Tensor:
    return values.reshape(1, -1, 1, 1)


def _depthwise(values: Tensor) -> Tensor:
    return values.reshape(-1, 1, 1, 1)


def _prelu(channels: int, side: int) -> Case:
    slopes = _noise(channels).abs()
    return _case(
        "PReLU of an image",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        {"a": slopes},
        plain=lambda m, x: F.prelu(x, m.a),
        relu_first=lambda m, x: torch.relu(x) * _image(1 - m.a) + x * _image(m.a),
        maximum=lambda m, x: torch.maximum(x, x * _image(m.a)),
        clamp_sum=lambda m, x: torch.relu(x) + _image(m.a) * torch.clamp(x, max=0),
        depthwise_sum=lambda m, x: (
            F.conv2d(torch.relu(x), _depthwise(1 - m.a), groups=channels)
            + F.conv2d(x, _depthwise(m.a), groups=channels)
        ),
        selected=lambda m, x: x * torch.where(x > 0, torch.ones(()), _image(m.a)),
    )


def _one_slope(channels: int, side: int) -> Case:
    return _case(
        "PReLU of one slope",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        {"a": torch.tensor([0.25])},
        plain=lambda m, x: F.prelu(x, m.a),
        maximum=lambda m, x: torch.maximum(x, x * m.a),
    )


def _transposed(channels: int, side: int, groups: int, geometry: tuple[int, int, int] = (4, 1, 0)) -> Case:
    kernel, padding, further = geometry
    weight = _noise(channels, channels // groups, kernel, kernel)
    kind = "depthwise" if groups > 1 else "dense"

    def stuffed(m: Any, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        rows = F.pad(x.permute(0, 2, 3, 1).reshape(height, 1, width, channels), (0, channels, 0, 0, 0, 1))
        zeros = rows.reshape(count, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        plain = m.w.reshape(groups, channels // groups, -1, kernel, kernel).transpose(1, 2).flatten(0, 1).flip(2, 3)
        first, last = kernel - 1 - padding, kernel - 2 - padding + further
        return F.conv2d(F.pad(zeros, (first, last, first, last)), plain, groups=groups)

    def dense(m: Any, x: Tensor) -> Tensor:
        full = torch.diag_embed(m.w[:, 0].permute(1, 2, 0)).permute(2, 3, 0, 1)
        return F.conv_transpose2d(x, full, None, 2, padding, further)

    forms: dict[str, Function] = {
        "plain": lambda m, x: F.conv_transpose2d(torch.relu(x), m.w, None, 2, padding, further, groups),
        "zeros_between": lambda m, x: stuffed(m, torch.relu(x)),
    }
    if groups > 1:
        forms["dense_with_zeros"] = lambda m, x: dense(m, torch.relu(x))
    name = f"{channels} channels, {side}x{side}, kernel {kernel}"
    return _case(f"{kind} transposed convolution, stride 2", name, (1, channels, side, side), {"w": weight}, **forms)


def _few_channels(inputs: int, outputs: int, side: int) -> Case:
    return _case(
        "3x3 convolution to few channels",
        f"{inputs} to {outputs} channels, {side}x{side}",
        (1, inputs, side, side),
        {"w": _noise(outputs, inputs, 3, 3), "b": _noise(outputs)},
        after=outputs,
        plain=lambda m, x: F.conv2d(torch.relu(x), m.w, m.b, padding=1),
    )


def _shuffle(channels: int, side: int) -> Case:
    def one_transpose(m: Any, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        blocks = x.reshape(count, channels, 2, 2, height, width).permute(0, 1, 4, 2, 5, 3)
        return blocks.reshape(count, channels, 2 * height, 2 * width)

    return _case(
        "pixel shuffle by 2 of a convolution",
        f"{4 * channels} channels, {side}x{side}",
        (1, 4 * channels, side, side),
        {},
        after=channels,
        plain=lambda m, x: F.pixel_shuffle(x, 2),
        one_transpose=one_transpose,
    )


def _softmax(side: int) -> Case:
    difference = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).reshape(2, 2, 1, 1)
    return _case(
        "softmax over two classes",
        f"{side}x{side}",
        (1, 2, side, side),
        {"d": difference},
        plain=lambda m, x: torch.softmax(x, 1),
        convolution=lambda m, x: torch.sigmoid(F.conv2d(x, m.d)),
        slices=lambda m, x: torch.sigmoid(torch.cat([x[:, :1] - x[:, 1:], x[:, 1:] - x[:, :1]], 1)),
    )


def _confidence(side: int) -> Case:
    return _case(
        "maximum of a softmax over two classes",
        f"{side}x{side}",
        (1, 2, side, side),
        {},
        after=1,
        plain=lambda m, x: torch.softmax(x, 1).amax(1, keepdim=True),
    )


def _hard_swish(channels: int, side: int) -> Case:
    return _case(
        "h-swish",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        {},
        plain=lambda m, x: F.hardswish(x),
        hard_sigmoid=lambda m, x: x * F.hardsigmoid(x),
        relu6=lambda m, x: x * (F.relu6(x + 3) * (1 / 6)),
    )


def _hard_sigmoid(channels: int, side: int) -> Case:
    return _case(
        "hard sigmoid",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        {},
        plain=lambda m, x: F.hardsigmoid(x),
        relu6=lambda m, x: F.relu6(x + 3) * (1 / 6),
    )


def _squeeze_excite(channels: int, side: int) -> Case:
    less = channels // 4
    constants = {"a": _noise(less, channels), "b": _noise(less), "c": _noise(channels, less), "d": _noise(channels)}

    def linear(m: Any, x: Tensor, pooled: Tensor) -> Tensor:
        gate = torch.sigmoid(F.linear(torch.relu(F.linear(pooled, m.a, m.b)), m.c, m.d))
        return x * gate[:, :, None, None]

    def pointwise(m: Any, x: Tensor, pooled: Tensor) -> Tensor:
        hidden = torch.relu(F.conv2d(pooled, m.a[:, :, None, None], m.b))
        return x * torch.sigmoid(F.conv2d(hidden, m.c[:, :, None, None], m.d))

    return _case(
        "squeeze-excite",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        constants,
        plain=lambda m, x: linear(m, x, F.adaptive_avg_pool2d(x, 1).flatten(1)),
        mean_linear=lambda m, x: linear(m, x, x.mean((2, 3))),
        adaptive_pointwise=lambda m, x: pointwise(m, x, F.adaptive_avg_pool2d(x, 1)),
        mean_pointwise=lambda m, x: pointwise(m, x, x.mean((2, 3), keepdim=True)),
        average_pointwise=lambda m, x: pointwise(m, x, F.avg_pool2d(x, side)),
    )


def _strided(inputs: int, outputs: int, side: int, groups: int) -> Case:
    kind = "depthwise " if groups > 1 else ""
    return _case(
        f"{kind}3x3 convolution, stride 2, padding 1",
        f"{inputs} to {outputs} channels, {side}x{side}",
        (1, inputs, side, side),
        {"w": _noise(outputs, inputs // groups, 3, 3), "b": _noise(outputs)},
        after=outputs,
        plain=lambda m, x: F.conv2d(x, m.w, m.b, 2, 1, groups=groups),
        kernel_4=lambda m, x: F.conv2d(x, F.pad(m.w, (0, 1, 0, 1)), m.b, 2, 1, groups=groups),
        padded_before=lambda m, x: F.conv2d(F.pad(x, (1, 1, 1, 1)), m.w, m.b, 2, 0, groups=groups),
    )


def _norm_after_sum(channels: int, side: int) -> Case:
    scale, shift = 1 + _noise(channels), _noise(channels)
    constants = {"s": scale, "h": shift, "zero": torch.zeros(channels), "one": torch.ones(channels)}

    def total(x: Tensor) -> Tensor:
        return x + torch.sigmoid(x)

    return _case(
        "BatchNorm after a sum",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        constants,
        plain=lambda m, x: F.batch_norm(total(x), m.zero, m.one, m.s, m.h, False, 0.0, 0.0),
        product_and_sum=lambda m, x: total(x) * _image(m.s) + _image(m.h),
        depthwise=lambda m, x: F.conv2d(total(x), _depthwise(m.s), m.h, groups=channels),
    )


def _grouped(channels: int, groups: int, side: int) -> Case:
    weight = _noise(channels, channels // groups, 1, 1)
    full = torch.block_diag(*weight[:, :, 0, 0].chunk(groups))[:, :, None, None]
    return _case(
        "grouped 1x1 convolution",
        f"{channels} channels in {groups} groups, {side}x{side}",
        (1, channels, side, side),
        {"w": weight, "full": full},
        plain=lambda m, x: F.conv2d(torch.relu(x), m.w, groups=groups),
        dense=lambda m, x: F.conv2d(torch.relu(x), m.full),
    )


def _warp(channels: int, side: int) -> Case:
    flow = F.affine_grid(torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.9, 0.05]]]), [1, 1, side, side], False)

    def moved(x: Tensor) -> Tensor:
        return 0.1 * torch.tanh(x[:, :2]).permute(0, 2, 3, 1)

    return _case(
        "grid_sample",
        f"{channels} channels, {side}x{side}",
        (1, channels, side, side),
        {"grid": flow},
        plain=lambda m, x: F.grid_sample(x, m.grid + moved(x), align_corners=False),
    )


def _adaptive(wanted: int, side: int) -> Case:
    return _case(
        "adaptive average pooling",
        f"{side}x{side} to {wanted}x{wanted}",
        (1, 32, side, side),
        {},
        plain=lambda m, x: F.adaptive_avg_pool2d(x, wanted),
    )


CASES: tuple[Case, ...] = (
    *(_prelu(*size) for size in ((48, 28), (24, 56), (12, 112))),
    *(_one_slope(*size) for size in ((48, 28), (24, 56), (12, 112))),
    *(_transposed(*size) for size in ((96, 7, 1), (32, 14, 1), (16, 56, 1), (8, 112, 1))),
    _transposed(16, 28, 1, (2, 0, 0)),
    _transposed(16, 28, 1, (3, 1, 1)),
    *(_transposed(*size) for size in ((32, 14, 32), (64, 28, 64), (16, 56, 16))),
    *(_few_channels(*size) for size in ((2, 2, 56), (4, 4, 112), (8, 1, 112), (2, 2, 224), (8, 2, 224))),
    *(_shuffle(*size) for size in ((16, 28), (16, 56), (2, 112))),
    *(_softmax(side) for side in (56, 224)),
    *(_confidence(side) for side in (56, 224)),
    *(_hard_swish(*size) for size in ((72, 28), (16, 112))),
    _hard_sigmoid(72, 28),
    *(_squeeze_excite(*size) for size in ((48, 28), (96, 56))),
    *(_strided(*size) for size in ((3, 16, 224, 1), (24, 48, 56, 1), (48, 48, 56, 48))),
    *(_norm_after_sum(*size) for size in ((48, 28), (24, 56))),
    *(_grouped(*size) for size in ((48, 2, 28), (96, 4, 28), (24, 2, 56))),
    _warp(16, 28),
    *(_adaptive(*size) for size in ((3, 28), (6, 28))),
)
