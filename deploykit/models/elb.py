"""ELB: extremely light-weight backbone for portrait segmentation, in training form.

Source: Li, Luo and Lyu, "Fast Portrait Segmentation with extremely light-weight network", sections 2 and 2.1,
Figures 1 and 3. There is no public code, and the text leaves widths, normalisation and activation open: it says
that the structure "is similar to that of" ERFNet. This is the reading that fits Table 1 best: ERFNet's encoder
(16, 64 and 128 channels, five and eight blocks, dilations 2, 4, 8, 16 twice) with its residual block replaced by
the bottleneck-based factorized block (BFB) of two factorized pairs.

Cost at 512 x 512 with a channel decreasing rate of 2 (DR2): 3.778 G convolution multiply-accumulates (Table 1
prints 3.8 G) and 657,727 parameters, 0.658 M (Table 1 prints 0.6 M). One pair in each block would give 2.469 G,
which is out of reach of the printed cost. With a rate of 4 (DR4): 1.379 G and 238,943 parameters, 0.239 M; Table 2
leaves both open.

Choices that the text leaves open, as in ERFNet unless said otherwise: BatchNorm ends each pair and each 1x1
convolution, ReLU follows the residual sum and every convolution of a block but the last, and only the second pair
of a block is dilated. 1x3 comes before 3x1, as section 2.1 says (ERFNet: after). ReLU stands between the two: the
equation of section 2.1 is the linear decomposition, but both networks that it builds on put a non-linearity there.
So no two convolutions of the network follow each other with nothing but linear steps between them, and a 1x3 and a
3x1 cannot be merged into one. Convolutions have no bias (ERFNet's have: 662,558 parameters), and there is no
dropout, which the paper does not mention. The one convolution of the decoder is 1x1; a bilinear resize brings its
scores to the size of the input.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = (16, 64, 128)
REDUCTIONS = (2, 4)
LEVEL2_BLOCKS = 5
LEVEL3_DILATIONS = (2, 4, 8, 16, 2, 4, 8, 16)


class DSB(nn.Module):
    """Downsampler block: a 3x3 convolution of stride 2 and a max pooling side by side, BatchNorm, ReLU (section 2)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out - channels_in, 3, stride=2, padding=1, bias=False)
        self.pool = nn.MaxPool2d(2, stride=2)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H/2, W/2)."""
        out: Tensor = F.relu(self.bn(torch.cat([self.conv(x), self.pool(x)], dim=1)))
        return out


class FactorizedPair(nn.Module):
    """A 3x3 convolution factorized into 1x3 and 3x1 (section 2.1), each followed by ReLU, the second normalised."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.row = nn.Conv2d(channels, channels, (1, 3), padding=(0, dilation), dilation=(1, dilation), bias=False)
        self.column = nn.Conv2d(channels, channels, (3, 1), padding=(dilation, 0), dilation=(dilation, 1), bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of ``x`` (N, C, H, W)."""
        out: Tensor = F.relu(self.bn(self.column(F.relu(self.row(x)))))
        return out


class BFB(nn.Module):
    """Bottleneck-based factorized block: 1x1 down to ``channels / reduction``, two pairs, 1x1 up, sum (Figure 3c)."""

    def __init__(self, channels: int, reduction: int, dilation: int = 1) -> None:
        super().__init__()
        inner = channels // reduction
        self.reduce = nn.Sequential(nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU())
        self.pair1 = FactorizedPair(inner)
        self.pair2 = FactorizedPair(inner, dilation)
        self.expand = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of ``x`` (N, C, H, W)."""
        out: Tensor = F.relu(self.expand(self.pair2(self.pair1(self.reduce(x)))) + x)
        return out


class ELB(nn.Module):
    """The whole network; the height and the width of the input are multiples of 8.

    ``reduction`` is the channel decreasing rate of Table 2: 2 (DR2, the paper's choice) or 4 (DR4); anything else
    raises ValueError.
    """

    size_multiple = 8

    def __init__(self, classes: int = 2, reduction: int = 2) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction is {reduction}: it has to be one of {REDUCTIONS}")
        level1, level2, level3 = CHANNELS
        self.down1 = DSB(3, level1)
        self.down2 = DSB(level1, level2)
        self.level2 = nn.Sequential(*(BFB(level2, reduction) for _ in range(LEVEL2_BLOCKS)))
        self.down3 = DSB(level2, level3)
        self.level3 = nn.Sequential(*(BFB(level3, reduction, dilation) for dilation in LEVEL3_DILATIONS))
        self.classifier = nn.Conv2d(level3, classes, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, classes, H, W) of preprocessed images (N, 3, H, W)."""
        level2 = self.level2(self.down2(self.down1(image)))
        scores = self.classifier(self.level3(self.down3(level2)))
        return F.interpolate(scores, scale_factor=8.0, mode="bilinear", align_corners=False)
