"""Activations, normalisations, gates and arithmetic."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.preflight.constructs.network import CHANNELS, Construct, of


class _SqueezeExcite(nn.Module):
    """A gate per channel from the pooled map, with a PReLU on the vector where ``prelu``."""

    def __init__(self, prelu: bool) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Linear(CHANNELS, 4), nn.Linear(4, CHANNELS)
        self.slope = nn.PReLU(4) if prelu else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.expand(self.slope(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


def _layer_norm_2d(x: Tensor, norm: nn.Module) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[no-any-return]


ACTIVATIONS: tuple[Construct, ...] = (
    Construct("ReLU6", "min(max(x, 0), 6)", of(lambda x: F.relu6(4 * x))),
    Construct("PReLU on maps", "a slope a channel", lambda: nn.PReLU(CHANNELS)),
    Construct("PReLU on vectors", "in a squeeze-excite gate", lambda: _SqueezeExcite(True)),
    Construct("leaky ReLU", "slope 0.1", of(lambda x: F.leaky_relu(x, 0.1))),
    Construct("h-swish", "x · h-sigmoid(x)", of(lambda x: F.hardswish(3 * x))),
    Construct("h-sigmoid", "min(max(x + 3, 0), 6) / 6", of(lambda x: F.hardsigmoid(3 * x))),
    Construct("SiLU", "x · sigmoid(x)", of(F.silu)),
    Construct("GELU", "by the error function", of(F.gelu)),
    Construct("GELU, tanh", "its approximation", of(lambda x: F.gelu(x, approximate="tanh"))),
    Construct("ELU", "exp(x) - 1 below 0", of(F.elu)),
    Construct("softplus", "log(1 + exp(x))", of(F.softplus)),
    Construct("Mish", "x · tanh(softplus(x))", of(F.mish)),
    Construct("tanh", "of every value", of(torch.tanh)),
    Construct("clamp", "to -0.5 … 1", of(lambda x: x.clamp(-0.5, 1.0))),
    Construct("softmax", "over channels", of(lambda x: torch.softmax(x, 1))),
    Construct("log softmax", "over channels", of(lambda x: torch.log_softmax(x, 1))),
    Construct(
        "softmax over positions", "of the flat map", of(lambda x: torch.softmax(x.flatten(2), 2).view(x.shape) * 500)
    ),
)

NORMALISATIONS: tuple[Construct, ...] = (
    Construct("BatchNorm after ReLU", "nothing to fold it into", lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8))),
    Construct("group norm", "2 groups", lambda: nn.GroupNorm(2, CHANNELS)),
    Construct("instance norm", "with weight and bias", lambda: nn.InstanceNorm2d(CHANNELS, affine=True)),
    Construct("layer norm, channels last", "as ConvNeXt has it", of(_layer_norm_2d, lambda: nn.LayerNorm(CHANNELS))),
    Construct("layer norm over the map", "channels, rows and columns", of(lambda x: F.layer_norm(x, x.shape[1:]))),
    Construct("L2 normalise", "over channels", of(lambda x: F.normalize(x, dim=1))),
    Construct("standard deviation", "over channels", of(lambda x: x / (x.std(1, keepdim=True) + 0.1))),
)

GATES: tuple[Construct, ...] = (
    Construct("squeeze-excite", "a gate a channel", lambda: _SqueezeExcite(False)),
    Construct(
        "max over channels, expanded",
        "max, unsqueeze, expand, times",
        of(lambda x: x * (1 - torch.softmax(x, 1).max(1)[0].unsqueeze(1).expand(x.shape))),
    ),
    Construct(
        "spatial attention",
        "mean and max over channels, joined",
        of(lambda x: torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)),
    ),
    Construct("constant minus conv", "1 - conv(x)", of(lambda x, conv: 1 - conv(x), lambda: nn.Conv2d(8, 8, 1))),
    Construct(
        "constant over conv", "1 / conv(x)", of(lambda x, conv: 1 / (2 + conv(x).abs()), lambda: nn.Conv2d(8, 8, 1))
    ),
    Construct("where", "by a comparison", of(lambda x: torch.where(x > 0.1, x, 0.5 * x + 0.05))),
    Construct("masked fill", "by a comparison", of(lambda x: x.masked_fill(x < 0, 0.0))),
    Construct(
        "power, exp, log, sqrt",
        "of positive values",
        of(lambda x: torch.sqrt(x.abs() + 1) + torch.log(x.abs() + 1) + torch.exp(-x.abs()) + (x.abs() + 0.5) ** 1.5),
    ),
    Construct(
        "floor and round",
        "of the pooled map",
        of(lambda x: x + torch.floor(3 * x.mean((2, 3), keepdim=True)) + torch.round(2 * x.amax((2, 3), keepdim=True))),
    ),
)
