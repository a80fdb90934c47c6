"""RCRNet, fourth variant (RCR decoder and bypass branch), in training form.

Source: the RCRNet paper (Re-parameter Compress Residual module), sections 3.1 to 3.3, Figures 2 to 4. There
is no public code and the text leaves the widths open: this is the reading with one structure per stage and
the channels of PortraitNet. It meets the printed cost within 4 %: 211.4 M multiply-accumulates at 224 x 224
in merged form against 217 M, counted as the paper's tables count (Conv2d alone, edge head included,
transposed convolutions ignored). It departs from the printed 0.770 M parameters: 0.619 M in training form,
0.611 M with the RCR modules merged, 0.607 M with every BatchNorm folded. The printed counts of variants 1
to 3 leave no room for a variant 4 that is made of their parts and has more.

Choices that the text leaves open: the shortcut of a decoder stage is resized before its 1x1 convolution
(which fits the printed cost), the second depthwise branch is 1x1 (section 3.2 prints 3x3 for both, yet
merges a 1x1), a stage ends without activation, and the one edge head sits on the bypass, at half the size
of the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 6
STEM_CHANNELS = 32
ENCODER_CHANNELS = (16, 24, 32, 96, 320)
DECODER_CHANNELS = (96, 32, 24, 16, 8)


class RCR(nn.Module):
    """Re-parameter Compress Residual module: a 1x1 convolution, then three parallel depthwise branches.

    Equation 1: ``conv3(y) + conv1(y) + y`` with ``y = relu(bn(1x1(x)))``, each convolution depthwise and with
    its own BatchNorm. The sum equals one depthwise 3x3 convolution once BatchNorm is folded.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block1 = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
        )
        self.conv3 = nn.Sequential(
            nn.Conv2d(channels_out, channels_out, 3, padding=1, groups=channels_out, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.conv1 = nn.Sequential(
            nn.Conv2d(channels_out, channels_out, 1, groups=channels_out, bias=False),
            nn.BatchNorm2d(channels_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the three branches (N, C_out, H, W), without activation."""
        y = self.block1(x)
        out: Tensor = self.conv3(y) + self.conv1(y) + y
        return out


def _projection(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride, bias=False), nn.BatchNorm2d(channels_out))


class StructureA(nn.Module):
    """Two RCR modules with a shortcut, at one size (Figure 4a)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.rcr1 = RCR(channels_in, channels_out)
        self.rcr2 = RCR(channels_out, channels_out)
        self.shortcut = _projection(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H, W)."""
        out: Tensor = self.rcr2(F.relu(self.rcr1(x))) + self.shortcut(x)
        return out


class StructureBDown(nn.Module):
    """Two RCR modules around a depthwise convolution of stride 2, with a strided shortcut (Figure 4b)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        hidden = EXPANSION * channels_in
        self.rcr1 = RCR(channels_in, hidden)
        self.down = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride=2, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
        )
        self.rcr2 = RCR(hidden, channels_out)
        self.shortcut = _projection(channels_in, channels_out, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H/2, W/2)."""
        out: Tensor = self.rcr2(self.down(F.relu(self.rcr1(x)))) + self.shortcut(x)
        return out


class StructureBUp(nn.Module):
    """Two RCR modules around a transposed convolution of stride 2, with a bilinear shortcut (Figure 4b)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.rcr1 = RCR(channels_in, channels_out)
        self.up = nn.Sequential(
            nn.ConvTranspose2d(channels_out, channels_out, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
        )
        self.rcr2 = RCR(channels_out, channels_out)
        self.shortcut = _projection(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, 2H, 2W)."""
        main: Tensor = self.rcr2(self.up(F.relu(self.rcr1(x))))
        resized = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        out: Tensor = main + self.shortcut(resized)
        return out


class FeatureFusion(nn.Module):
    """Feature Fusion Module of BiSeNet: concatenation, 1x1 convolution, channel attention."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()
        )
        self.attention = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels_out, channels_out, 1),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 1),
            nn.Sigmoid(),
        )

    def forward(self, deep: Tensor, spatial: Tensor) -> Tensor:
        """Return fused features (N, C_out, H, W) of two maps of one size."""
        mixed = self.mix(torch.cat([deep, spatial], dim=1))
        out: Tensor = mixed + mixed * self.attention(mixed)
        return out


class SegHead(nn.Module):
    """Edge head of the bypass: 3x3 convolution, BatchNorm, ReLU, 1x1 convolution (Figure 2, upper right)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.head = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, classes, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return edge logits (N, classes, H, W)."""
        out: Tensor = self.head(x)
        return out


class RCRNet(nn.Module):
    """The whole network; the height and the width of the input are multiples of 32.

    The edge head serves training only: a deployment keeps the first output.
    """

    size_multiple = 32

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, STEM_CHANNELS, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(),
        )
        self.stage1 = StructureA(STEM_CHANNELS, ENCODER_CHANNELS[0])
        self.encoder = nn.ModuleList(
            StructureBDown(ENCODER_CHANNELS[i], ENCODER_CHANNELS[i + 1]) for i in range(len(ENCODER_CHANNELS) - 1)
        )
        widths = (ENCODER_CHANNELS[-1], *DECODER_CHANNELS)
        self.decoder = nn.ModuleList(StructureBUp(widths[i], widths[i + 1]) for i in range(len(DECODER_CHANNELS)))
        bypass = ENCODER_CHANNELS[0]
        self.bypass1 = RCR(bypass, bypass)
        self.bypass2 = RCR(bypass, bypass)
        self.fusion = FeatureFusion(2 * bypass, bypass)
        self.edge_head = SegHead(bypass, classes)
        self.classifier = nn.Conv2d(DECODER_CHANNELS[-1], classes, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes, H, W) and edge logits (N, classes, H/2, W/2) of images (N, 3, H, W)."""
        features = [self.stage1(self.stem(x))]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        y = features.pop()
        spatial = self.bypass2(F.relu(self.bypass1(features[0])))
        last = len(self.decoder) - 1
        for index, stage in enumerate(self.decoder):
            if index == last:
                y = self.fusion(y, spatial)
            y = stage(y)
            if index < last:
                y = y + features.pop()
        return self.classifier(y), self.edge_head(spatial)
