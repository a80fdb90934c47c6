"""RCRNet, its four variants for images and for video, in training form.

Source: the RCRNet paper (Re-parameter Compress Residual module), sections 3.1 to 3.3 and 4.4, Figures 2 to 4, Table 3:
variant 1 has an encoder of RCR modules and the decoder of PortraitNet, variant 2 a decoder of RCR modules, variant 3
is variant 1 with the bypass branch, variant 4 has both. There is no public code and the text leaves the widths open
(thousands of settings meet the printed cost): this is the reading with one structure per stage and the channels of
PortraitNet.

Cost at 224 x 224 in merged form, counted as the paper's tables count: multiply-accumulates (MACs) of Conv2d alone,
edge heads included, transposed convolutions ignored. Parameters in training form, with the RCR modules merged, and with
every BatchNorm folded as well:

======= ======= ======= ======= ======= ======= ============
variant trained merged  folded  printed MACs    printed MACs
======= ======= ======= ======= ======= ======= ============
1       0.618 M 0.612 M 0.607 M 0.607 M 159.3 M 157 M
2       0.616 M 0.608 M 0.604 M 0.608 M 179.0 M 177 M
3       0.621 M 0.615 M 0.610 M 0.610 M 190.4 M 190 M
4       0.619 M 0.611 M 0.607 M 0.770 M 211.4 M 217 M
======= ======= ======= ======= ======= ======= ============

Variant 4 departs from the printed parameters, which contradict each other (0.770 M in Table 3, 0.772 M in Table 1) and
the other rows: the differences between variants 1 to 3 leave 0.611 M for a network that is made of their parts.

Choices that the text leaves open: the second depthwise branch of a module is 1x1 (section 3.2 prints 3x3 for both,
yet merges a 1x1), a stage ends without activation, every variant adds the encoder's map at half the size too
(section 3.1; PortraitNet's decoder does not), and the decoder's edge head is PortraitNet's, a 3x3 convolution at full
size. Variant 4 has the bypass's edge head alone, the cost of variant 3 holds both. The shortcut of a decoder stage is
a 1x1 convolution and a bilinear resize, which commute: where it comes decides the cost alone, so it follows the printed
cost (variant 2: after the resize in the first three stages; variant 4: in all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.models.portraitnet import DBlock

EXPANSION = 6
STEM_CHANNELS = 32
ENCODER_CHANNELS = (16, 24, 32, 96, 320)
DECODER_CHANNELS = (96, 32, 24, 16, 8)


@dataclass(frozen=True)
class Variant:
    """What tells the variants apart; ``resized_first`` counts the decoder stages that resize before the shortcut."""

    rcr_decoder: bool
    bypass: bool
    decoder_edge: bool
    resized_first: int = 0


VARIANTS = {
    1: Variant(rcr_decoder=False, bypass=False, decoder_edge=True),
    2: Variant(rcr_decoder=True, bypass=False, decoder_edge=True, resized_first=3),
    3: Variant(rcr_decoder=False, bypass=True, decoder_edge=True),
    4: Variant(rcr_decoder=True, bypass=True, decoder_edge=False, resized_first=5),
}


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

    def __init__(self, channels_in: int, channels_out: int, resized_first: bool) -> None:
        super().__init__()
        self.resized_first = resized_first
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
        out: Tensor = main + (self.shortcut(_doubled(x)) if self.resized_first else _doubled(self.shortcut(x)))
        return out


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class TransposedStage(nn.Module):
    """A decoder stage of PortraitNet: a residual block, then a dense transposed convolution of stride 2."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = DBlock(channels_in, channels_out)
        self.up = nn.ConvTranspose2d(channels_out, channels_out, 4, stride=2, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, 2H, 2W)."""
        out: Tensor = self.up(self.block(x))
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
    """One of the four variants; the height and the width of the input are multiples of 32.

    The edge heads serve training only: a deployment keeps the first output. With ``prior``, for video, the stem takes
    the portrait's probability in the previous frame as a fourth channel (section 4.2.2). Raises ValueError for a
    variant that is not 1, 2, 3 or 4.
    """

    size_multiple = 32

    def __init__(self, classes: int = 2, variant: Literal[1, 2, 3, 4] = 4, prior: bool = False) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant is 1, 2, 3 or 4, not {variant!r}")
        self.parts = parts = VARIANTS[variant]
        self.stem = nn.Sequential(
            nn.Conv2d(3 + prior, STEM_CHANNELS, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(STEM_CHANNELS),
            nn.ReLU(),
        )
        self.stage1 = StructureA(STEM_CHANNELS, ENCODER_CHANNELS[0])
        self.encoder = nn.ModuleList(
            StructureBDown(ENCODER_CHANNELS[i], ENCODER_CHANNELS[i + 1]) for i in range(len(ENCODER_CHANNELS) - 1)
        )
        widths = (ENCODER_CHANNELS[-1], *DECODER_CHANNELS)
        self.decoder = nn.ModuleList(
            StructureBUp(widths[i], widths[i + 1], i < parts.resized_first)
            if parts.rcr_decoder
            else TransposedStage(widths[i], widths[i + 1])
            for i in range(len(DECODER_CHANNELS))
        )
        if parts.bypass:
            bypass = ENCODER_CHANNELS[0]
            self.bypass1 = RCR(bypass, bypass)
            self.bypass2 = RCR(bypass, bypass)
            self.fusion = FeatureFusion(2 * bypass, bypass)
            self.edge_head = SegHead(bypass, classes)
        self.classifier = nn.Conv2d(DECODER_CHANNELS[-1], classes, 3, padding=1, bias=False)
        if parts.decoder_edge:
            self.edge_classifier = nn.Conv2d(DECODER_CHANNELS[-1], classes, 3, padding=1, bias=False)

    def forward(self, image: Tensor, prior: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return logits and edge logits of images (N, 3, H, W), with ``prior`` (N, 1, H, W) for video.

        The logits are (N, classes, H, W), then come the edge logits of the decoder (N, classes, H, W; variants 1 to
        3) and those of the bypass (N, classes, H/2, W/2; variants 3 and 4).
        """
        features = [self.stage1(self.stem(image if prior is None else torch.cat([image, prior], dim=1)))]
        for stage in self.encoder:
            features.append(stage(features[-1]))
        half = features[0]
        y = features.pop()
        *stages, last = self.decoder
        for stage in stages:
            y = stage(y) + features.pop()
        edges: list[Tensor] = []
        if self.parts.bypass:
            spatial = self.bypass2(F.relu(self.bypass1(half)))
            y = self.fusion(y, spatial)
            edges.append(self.edge_head(spatial))
        y = last(y)
        if self.parts.decoder_edge:
            edges.insert(0, self.edge_classifier(y))
        return self.classifier(y), *edges
