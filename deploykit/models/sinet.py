"""SINet: extreme lightweight portrait segmentation with spatial squeeze modules (training form).

Source: Park et al., "SINet: Extreme Lightweight Portrait Segmentation Networks with Spatial Squeeze Modules and
Information Blocking Decoder", WACV 2020. Where the text and the released code disagree, this file follows the
code that trained the public checkpoint: the squeeze-excite gate ends in PReLU (the text cites a sigmoid), the
last 3x3 classifier runs after the bilinear upsampling (the text: before), and "reduce by half" means half of the
output channels. Parameter names are those of the public checkpoint, so that it loads without a key map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORM_EPS = 1e-3

# Section 3.1, Figure 4: (kernel, pooling) of the two branches of each S2-module, in the order of the encoder.
LEVEL2_BRANCHES = (((3, 1), (5, 1)), ((3, 1), (3, 1)))
LEVEL3_BRANCHES = (
    ((3, 1), (5, 1)),
    ((3, 1), (3, 1)),
    ((5, 1), (3, 2)),
    ((5, 2), (3, 4)),
    ((3, 1), (3, 1)),
    ((5, 1), (5, 1)),
    ((3, 2), (3, 4)),
    ((3, 1), (5, 2)),
)


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=BATCH_NORM_EPS)


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Return ``x`` (N, C, H, W) with its channels dealt out across ``groups``, as ShuffleNet does."""
    batch, channels, height, width = x.shape
    return x.view(batch, groups, channels // groups, height, width).transpose(1, 2).reshape(x.shape)


class Conv(nn.Module):
    """A convolution alone, under the name that the checkpoint uses."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of ``x`` (N, C, H, W)."""
        out: Tensor = self.conv(x)
        return out


class ConvBnPrelu(nn.Module):
    """Convolution, BatchNorm, PReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, stride, padding=(kernel - 1) // 2, bias=False)
        self.bn = _batch_norm(channels_out)
        self.act = nn.PReLU(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of ``x`` (N, C, H, W)."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class BnPrelu(nn.Module):
    """BatchNorm and PReLU, on a sum or a concatenation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = _batch_norm(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised and activated ``x`` (N, C, H, W)."""
        out: Tensor = self.act(self.bn(x))
        return out


class SqueezeExcite(nn.Module):
    """Channel gate whose last activation is PReLU; one Linear layer for the first stage, two for the second."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        if reduction > 1:
            hidden = channels // reduction
            self.dense = nn.Sequential(
                nn.Linear(channels, hidden), nn.PReLU(hidden), nn.Linear(hidden, channels), nn.PReLU(channels)
            )
        else:
            self.dense = nn.Sequential(nn.Linear(channels, channels), nn.PReLU(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W) scaled per channel."""
        pooled = F.adaptive_avg_pool2d(x, 1).flatten(1)
        gate: Tensor = self.dense(pooled)
        return x * gate[:, :, None, None]


class DsConvSe(nn.Module):
    """Stride-2 depthwise separable convolution with squeeze-excite between its two parts (Section 3.3)."""

    def __init__(self, channels_in: int, channels_out: int, reduction: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels_in, channels_in, 3, stride=2, padding=1, groups=channels_in, bias=False),
            SqueezeExcite(channels_in, reduction),
            nn.Conv2d(channels_in, channels_out, 1, bias=False),
        )
        self.bn = _batch_norm(channels_out)
        self.act = nn.PReLU(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H/2, W/2)."""
        out: Tensor = self.act(self.bn(self.conv(x)))
        return out


class S2Branch(nn.Module):
    """One branch of an S2-module: squeeze by pooling, depthwise convolution, 1x1 convolution, restore the size."""

    def __init__(self, channels: int, kernel: int, pooling: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.down = nn.AvgPool2d(pooling, pooling) if pooling > 1 else nn.Identity()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False),
            _batch_norm(channels),
        )
        self.act_conv1x1 = nn.Sequential(nn.PReLU(channels), nn.Conv2d(channels, channels, 1, bias=False))
        self.bn = _batch_norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of ``x`` (N, C, H, W)."""
        y: Tensor = self.act_conv1x1(self.conv(self.down(x)))
        if self.pooling > 1:
            y = F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=True)
        out: Tensor = self.bn(y)
        return out


class S2Module(nn.Module):
    """Spatial squeeze module: a grouped 1x1 convolution, a shuffle, two branches, concatenation (Section 3.1)."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        branches: Sequence[tuple[int, int]],
        residual: bool,
    ) -> None:
        super().__init__()
        half = channels_out // 2
        self.residual = residual
        self.c1 = Conv(channels_in, half, 1, groups=2)
        (kernel1, pooling1), (kernel2, pooling2) = branches
        self.d1 = S2Branch(half, kernel1, pooling1)
        self.d2 = S2Branch(half, kernel2, pooling2)
        self.BR = BnPrelu(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, H, W)."""
        squeezed = channel_shuffle(self.c1(x), 2)
        y = torch.cat([self.d1(squeezed), self.d2(squeezed)], dim=1)
        if self.residual:
            y = x + y
        out: Tensor = self.BR(y)
        return out


class SINetEncoder(nn.Module):
    """The encoder up to the coarse class scores at 1/8 of the input size (Section 3.3, Table 1)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.level1 = ConvBnPrelu(3, 12, 3, stride=2)
        self.level2_0 = DsConvSe(12, 16, reduction=1)
        self.level2 = nn.ModuleList(
            S2Module(16 if i == 0 else 48, 48, branches, residual=i > 0) for i, branches in enumerate(LEVEL2_BRANCHES)
        )
        self.BR2 = BnPrelu(16 + 48)
        self.level3_0 = DsConvSe(64, 48, reduction=2)
        self.level3 = nn.ModuleList(
            S2Module(48 if i == 0 else 96, 96, branches, residual=i > 0) for i, branches in enumerate(LEVEL3_BRANCHES)
        )
        self.BR3 = BnPrelu(48 + 96)
        self.classifier = Conv(48 + 96, classes, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class scores (N, classes, H/8, W/8) and the level 2 features (N, 48, H/4, W/4)."""
        level2_0 = self.level2_0(self.level1(x))
        level2 = level2_0
        for block in self.level2:
            level2 = block(level2)
        level3_0 = self.level3_0(self.BR2(torch.cat([level2_0, level2], dim=1)))
        level3 = level3_0
        for block in self.level3:
            level3 = block(level3)
        scores = self.classifier(self.BR3(torch.cat([level3_0, level3], dim=1)))
        return scores, level2


class SINet(nn.Module):
    """The whole network with its information blocking decoder (Section 3.2).

    86,910 parameters for two classes; 63,866,208 convolution multiply-accumulates at 224 x 224. The height and
    the width of the input are multiples of 32: the deepest branch pools by 4 at 1/8 of the size.
    """

    size_multiple = 32

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.encoder = SINetEncoder(classes)
        self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.bn_3 = _batch_norm(classes)
        self.level2_C = ConvBnPrelu(48, classes, 1)
        self.bn_2 = _batch_norm(classes)
        self.classifier = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            nn.Conv2d(classes, classes, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes, H, W) of preprocessed images (N, 3, H, W)."""
        scores, level2 = self.encoder(x)
        coarse = self.bn_3(self.up(scores))
        confidence = torch.softmax(coarse, dim=1).max(dim=1)[0]
        blocking = (1 - confidence).unsqueeze(1).expand(coarse.shape)
        detail = self.level2_C(level2)
        out: Tensor = self.classifier(self.bn_2(self.up(detail * blocking + coarse)))
        return out
