"""PortraitNet: a MobileNetV2 encoder and a light decoder with additive skips (training form).

Source: Zhang et al., "PortraitNet: Real-time Portrait Segmentation Network for Mobile Device", Computers &
Graphics 80 (2019), section 3.1 and Figure 2. Where the text and the released code disagree, this file follows the
code that trained the public checkpoint: skips are added (the text: concatenated), there are three of them and none
at half the size of the input, transposed convolutions are dense and have neither BatchNorm nor ReLU (the text: each
convolutional layer has both), and the first inverted residual block expands by a 1x1 convolution although its factor
is 1. Parameter names are those of the public checkpoint, so that it loads without a key map.

``decoder="bilinear"`` upsamples without weights in place of the transposed convolutions: the paper's speed table is
measured so, its count of parameters is not. No source says how the corners are aligned; here they are not, which is
PyTorch's default.

Cost at 224 x 224, two classes: 2,080,904 parameters with the edge head and 2,080,760 without, 178,176 of them in the
transposed convolutions; 325,110,688 multiply-accumulates of Conv2d alone, edge head included, as the tables of SINet
and RCRNet count. ``prior`` adds 288 weights to the stem (2,081,048 without the edge head).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

STEM_CHANNELS = 32
EXPANSION = 6
DECODER_CHANNELS = (96, 32, 24, 16, 8)


def _conv_bn(
    channels_in: int, channels_out: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    convolution = nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return convolution, nn.BatchNorm2d(channels_out)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1 to the expanded width, depthwise 3x3, linear 1x1; its input added where it fits."""

    def __init__(self, channels_in: int, channels_out: int, *, stride: int = 1, expansion: int = EXPANSION) -> None:
        super().__init__()
        hidden = expansion * channels_in
        self.residual = stride == 1 and channels_in == channels_out
        self.conv = nn.Sequential(
            *_conv_bn(channels_in, hidden, 1),
            nn.ReLU(),
            *_conv_bn(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(),
            *_conv_bn(hidden, channels_out, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H / stride, W / stride)."""
        y: Tensor = self.conv(x)
        return x + y if self.residual else y


def _stage(channels_in: int, channels_out: int, *, stride: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(
        InvertedResidual(channels_in, channels_out, stride=stride),
        *(InvertedResidual(channels_out, channels_out) for _ in range(blocks - 1)),
    )


class DBlock(nn.Module):
    """Transition block of the decoder: two depthwise separable convolutions beside one 1x1 convolution (Figure 2b)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Sequential(
                *_conv_bn(channels_in, channels_in, 3, groups=channels_in),
                nn.ReLU(),
                *_conv_bn(channels_in, channels_out, 1),
                nn.ReLU(),
            ),
            *_conv_bn(channels_out, channels_out, 3, groups=channels_out),
            nn.ReLU(),
            *_conv_bn(channels_out, channels_out, 1),
        )
        self.residual = nn.Sequential(*_conv_bn(channels_in, channels_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H, W)."""
        return torch.relu(self.block(x) + self.residual(x))


class PortraitNet(nn.Module):
    """The whole network; the height and the width of the input are multiples of 32.

    The edge head serves training only: a deployment keeps the first output. With ``prior`` the network takes the
    previous frame's probability of the portrait as a fourth channel. Raises ValueError for an unknown decoder.
    """

    size_multiple = 32

    def __init__(
        self,
        classes: int = 2,
        edge_head: bool = True,
        decoder: Literal["transposed", "bilinear"] = "transposed",
        prior: bool = False,
    ) -> None:
        super().__init__()
        self.prior = prior
        self.stage0 = nn.Sequential(*_conv_bn(4 if prior else 3, STEM_CHANNELS, 3, stride=2), nn.ReLU())
        self.stage1 = InvertedResidual(STEM_CHANNELS, 16, expansion=1)
        self.stage2 = _stage(16, 24, stride=2, blocks=2)
        self.stage3 = _stage(24, 32, stride=2, blocks=3)
        self.stage4 = _stage(32, 64, stride=2, blocks=4)
        self.stage5 = _stage(64, 96, stride=1, blocks=3)
        self.stage6 = _stage(96, 160, stride=2, blocks=3)
        self.stage7 = InvertedResidual(160, 320)
        first, second, third, fourth, fifth = DECODER_CHANNELS
        self.transit1, self.deconv1 = DBlock(320, first), _upsampling(decoder, first)
        self.transit2, self.deconv2 = DBlock(first, second), _upsampling(decoder, second)
        self.transit3, self.deconv3 = DBlock(second, third), _upsampling(decoder, third)
        self.transit4, self.deconv4 = DBlock(third, fourth), _upsampling(decoder, fourth)
        self.transit5, self.deconv5 = DBlock(fourth, fifth), _upsampling(decoder, fifth)
        self.pred = nn.Conv2d(fifth, classes, 3, padding=1, bias=False)
        self.edge = nn.Conv2d(fifth, 2, 3, padding=1, bias=False) if edge_head else None

    def forward(self, image: Tensor, prior: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Return logits (N, classes, H, W) of preprocessed images (N, 3, H, W), with edge logits (N, 2, H, W) if any.

        ``prior`` (N, 1, H, W), from 0 to 1, is given exactly where the network was built with ``prior=True``.
        """
        if self.prior != (prior is not None):
            raise ValueError("a prior is an input of a network that was built with prior=True, and of no other")
        x = image if prior is None else torch.cat([image, prior], dim=1)
        quarter = self.stage2(self.stage1(self.stage0(x)))
        eighth = self.stage3(quarter)
        sixteenth = self.stage5(self.stage4(eighth))
        deepest = self.stage7(self.stage6(sixteenth))
        y = self.deconv1(self.transit1(deepest))
        y = self.deconv2(self.transit2(sixteenth + y))
        y = self.deconv3(self.transit3(eighth + y))
        y = self.deconv4(self.transit4(quarter + y))
        y = self.deconv5(self.transit5(y))
        logits: Tensor = self.pred(y)
        return logits if self.edge is None else (logits, self.edge(y))


def _upsampling(decoder: str, channels: int) -> nn.Module:
    if decoder == "transposed":
        return nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1, bias=False)
    if decoder == "bilinear":
        return nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    raise ValueError(f'decoder is "transposed" or "bilinear", not {decoder!r}')
