"""Convolutions, their padding, linear layers and parallel branches."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.preflight.constructs.network import CHANNELS, Construct, of


def _same(x: Tensor, convolution: nn.Module) -> Tensor:
    """Return the convolution of stride 2 with TensorFlow's SAME padding: the odd row goes to the bottom."""
    return convolution(F.pad(x, [0, 1, 1, 1]))  # type: ignore[no-any-return]


class _Branches(nn.Module):
    """Parallel 3x3, 1x1 and identity branches, each with BatchNorm, summed."""

    def __init__(self) -> None:
        super().__init__()
        self.square = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS))
        self.point = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1, bias=False), nn.BatchNorm2d(CHANNELS))
        self.identity = nn.BatchNorm2d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.point(x) + self.identity(x)  # type: ignore[no-any-return]


CONVOLUTIONS: tuple[Construct, ...] = (
    Construct(
        "conv + BatchNorm",
        "3x3, stride 2, then BatchNorm and ReLU",
        lambda: nn.Sequential(nn.Conv2d(CHANNELS, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU()),
    ),
    Construct("parallel branches", "3x3 + 1x1 + identity, each with BatchNorm", _Branches),
    Construct("depthwise conv", "3x3, one group a channel", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8)),
    Construct(
        "depthwise conv, multiplier 2", "two outputs a channel", lambda: nn.Conv2d(8, 16, 3, padding=1, groups=8)
    ),
    Construct("grouped conv", "3x3, 4 groups", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=4)),
    Construct("dilated conv", "3x3, dilation 2", lambda: nn.Conv2d(8, 8, 3, padding=2, dilation=2)),
    Construct("dilated depthwise conv", "1x3, dilation 3", lambda: nn.Conv2d(8, 8, (1, 3), 1, (0, 3), (1, 3), 8)),
    Construct("TF SAME padding", "stride 2, one more row below than above", of(_same, lambda: nn.Conv2d(8, 8, 3, 2))),
    Construct(
        "conv1d",
        "over rows, as channel attention has it",
        of(lambda x, conv: conv(x.mean(3)).unsqueeze(3) * x, lambda: nn.Conv1d(8, 8, 3, padding=1)),
    ),
    Construct("reflect padding", "2 around", of(lambda x: F.pad(x, [2, 2, 1, 1], mode="reflect"))),
    Construct("replicate padding", "2 around", of(lambda x: F.pad(x, [2, 2, 1, 1], mode="replicate"))),
    Construct("circular padding", "2 around", of(lambda x: F.pad(x, [2, 2, 1, 1], mode="circular"))),
    Construct("constant padding", "by 0.5", of(lambda x: F.pad(x, [1, 2, 0, 1], value=0.5))),
    Construct("transposed conv", "4x4, stride 2, dense", lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1)),
    Construct("transposed conv, depthwise", "4x4, stride 2", lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=8)),
    Construct(
        "transposed conv, grouped", "4x4, stride 2, 2 groups", lambda: nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2)
    ),
    Construct("transposed conv, output_padding", "3x3, stride 2", lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, 1)),
    Construct(
        "transposed conv, cropped unevenly", "3x3, stride 2, padding 1", lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1)
    ),
    Construct("transposed conv, dilated", "3x3, dilation 2", lambda: nn.ConvTranspose2d(8, 8, 3, 2, 1, dilation=2)),
    Construct(
        "linear",
        "on the pooled vector",
        of(lambda x, layer: x + layer(x.mean((2, 3)))[:, :, None, None], lambda: nn.Linear(8, 8)),
    ),
    Construct(
        "linear, channels last",
        "on (1, 21, 28, 8)",
        of(lambda x, layer: layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), lambda: nn.Linear(8, 8)),
    ),
)
