"""MobileNetV3 with the SAPPM context module and flow-alignment attention fusion, in training form.

Source: the report "A real-time virtual background system based on portrait segmentation" (in Chinese), sections 3.1
to 3.3, 3.5 and 3.6, Table 1, Figures 18 to 21. Where the text and the released code disagree, this file follows the
code that trained the public checkpoints:

- the backbone ends at 1/8 of the input size, not 1/16: the fifth layer keeps the resolution, and it and the later
  ones are dilated by 2 instead (only this gives the printed 0.709 G);
- the first activation is h-swish (Table 1: ReLU), and a layer has a shortcut only where its stride is 1 too;
- strided convolutions of the backbone pad as TensorFlow's "same", so the padding depends on the input size;
- the boundary branch reads the features of the second stage (section 3.6 says the third), the auxiliary head those of
  the fourth.

Parameter names are those of the public checkpoints, so that they load without a key map; only the list around the
auxiliary head, which one of the two checkpoints has, is left out (``auxiliary_head.0.`` there).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LOW_CHANNELS = 16
HIGH_CHANNELS = 48
CONTEXT_CHANNELS = 24
FLOW_CHANNELS = 32
BOUNDARY_CHANNELS = 32
# Section 3.2: the grids of the pyramid pooling, in the order of the checkpoint.
POOLING_GRIDS = (2, 3, 6, 1)
# The share of channels dropped before a classifier, in training only (the framework's default).
DROPOUT = 0.1


class Bottleneck(NamedTuple):
    """One row of Table 1, with the dilation of the code."""

    kernel: int
    expanded: int
    channels: int
    squeeze_excite: bool
    activation: type[nn.Module]
    stride: int = 1
    dilation: int = 1
    shortcut: bool = False
    same_padding: bool = False


# Table 1, layers 2 to 9.
BOTTLENECKS = (
    Bottleneck(3, 16, 16, True, nn.ReLU, stride=2, same_padding=True),
    Bottleneck(3, 72, 24, False, nn.ReLU, stride=2, same_padding=True),
    Bottleneck(3, 88, 24, False, nn.ReLU, shortcut=True),
    Bottleneck(5, 96, 40, True, nn.Hardswish, dilation=2, same_padding=True),
    Bottleneck(5, 240, 40, True, nn.Hardswish, dilation=2, shortcut=True),
    Bottleneck(5, 240, 40, True, nn.Hardswish, dilation=2, shortcut=True),
    Bottleneck(5, 120, 48, True, nn.Hardswish, dilation=2),
    Bottleneck(5, 144, 48, True, nn.Hardswish, dilation=2, shortcut=True),
)


def same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Return TensorFlow's "same" padding before and after an axis of ``size``: the odd pixel comes after."""
    steps = -(-size // stride) - 1
    total = max(steps * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def resized(x: Tensor, size: torch.Size) -> Tensor:
    """Return ``x`` (N, C, h, w) interpolated bilinearly to the height and width ``size``, corners not aligned."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


class SamePadConv2d(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": the output has ``ceil(size / stride)`` rows and columns."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution (N, C_out, ceil(H / stride), ceil(W / stride)) of ``x`` (N, C, H, W)."""
        (kernel_h, kernel_w), (stride_h, stride_w), (dilation_h, dilation_w) = (
            self.kernel_size, self.stride, self.dilation,
        )  # fmt: skip
        top, bottom = same_padding(x.shape[2], kernel_h, stride_h, dilation_h)
        left, right = same_padding(x.shape[3], kernel_w, stride_w, dilation_w)
        return super().forward(F.pad(x, (left, right, top, bottom)))


class ConvBnAct(nn.Module):
    """Convolution, BatchNorm and, where one is given, an activation."""

    def __init__(self, conv: nn.Conv2d, activation: type[nn.Module] = nn.Identity) -> None:
        super().__init__()
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)
        self.activate = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of ``x`` (N, C, H, W)."""
        out: Tensor = self.activate(self.bn(self.conv(x)))
        return out


class ConvAct(nn.Module):
    """Convolution with bias and an activation."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
        self.activate = activation()

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated convolution of ``x`` (N, C, H, W)."""
        out: Tensor = self.activate(self.conv(x))
        return out


class BnReluConv(nn.Module):
    """BatchNorm, ReLU, convolution without bias: the order of the context module."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels_in)
        self.conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution (N, C_out, H, W) of the normalised and activated ``x`` (N, C, H, W)."""
        out: Tensor = self.conv(F.relu(self.bn(x)))
        return out


class SqueezeExcite(nn.Module):
    """Channel gate: average pooling, 1x1 convolution, ReLU, 1x1 convolution, hard sigmoid (section 3.1)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = ConvAct(channels, hidden, 1, nn.ReLU)
        self.conv2 = ConvAct(hidden, channels, 1, nn.Hardsigmoid)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, C, H, W) scaled per channel."""
        gate: Tensor = self.conv2(self.conv1(F.adaptive_avg_pool2d(x, 1)))
        return x * gate


def _hidden_channels(channels: int, ratio: int) -> int:
    """Return ``channels / ratio`` as a multiple of 8, at least 8 and not below 90 % of it, as MobileNetV3 does."""
    wanted = channels // ratio
    rounded = max(8, (wanted + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * wanted else rounded + 8


class InvertedResidual(nn.Module):
    """Inverted residual block (section 3.1, Figure 18): expand, depthwise, squeeze-excite, linear bottleneck."""

    def __init__(self, channels_in: int, row: Bottleneck) -> None:
        super().__init__()
        expanded = row.expanded
        self.shortcut = row.shortcut
        self.expand_conv = (
            ConvBnAct(nn.Conv2d(channels_in, expanded, 1, bias=False), row.activation)
            if expanded != channels_in
            else nn.Identity()
        )
        convolution = SamePadConv2d if row.same_padding else nn.Conv2d
        padding = 0 if row.same_padding else row.dilation * (row.kernel // 2)
        self.depthwise_conv = ConvBnAct(
            convolution(expanded, expanded, row.kernel, row.stride, padding, row.dilation, expanded, bias=False),
            row.activation,
        )
        self.se = SqueezeExcite(expanded, _hidden_channels(expanded, 4)) if row.squeeze_excite else nn.Identity()
        self.linear_conv = ConvBnAct(nn.Conv2d(expanded, row.channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C_out, ceil(H / stride), ceil(W / stride))."""
        out: Tensor = self.linear_conv(self.se(self.depthwise_conv(self.expand_conv(x))))
        return x + out if self.shortcut else out


class Backbone(nn.Module):
    """The first nine layers of MobileNetV3-small (Table 1), dilated from the fifth on."""

    def __init__(self) -> None:
        super().__init__()
        self.layer0 = ConvBnAct(SamePadConv2d(3, LOW_CHANNELS, 3, stride=2, bias=False), nn.Hardswish)
        channels = LOW_CHANNELS
        for index, row in enumerate(BOTTLENECKS, 1):
            self.add_module(f"layer{index}", InvertedResidual(channels, row))
            channels = row.channels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the features of the second stage (N, 16, H/4, W/4) and of the last (N, 48, H/8, W/8)."""
        features = [x]
        for layer in self.children():
            features.append(layer(features[-1]))
        return features[2], features[-1]


class SAPPM(nn.Module):
    """Simple aggregation pyramid pooling module (section 3.2, Figure 19)."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ModuleList([BnReluConv(HIGH_CHANNELS, CONTEXT_CHANNELS)])
        for grid in POOLING_GRIDS:
            self.scales.append(nn.Sequential(nn.AdaptiveAvgPool2d(grid), BnReluConv(HIGH_CHANNELS, CONTEXT_CHANNELS)))
        count = len(POOLING_GRIDS)
        self.processes = BnReluConv(count * CONTEXT_CHANNELS, count * CONTEXT_CHANNELS, 3, groups=count)
        self.compression = BnReluConv((count + 1) * CONTEXT_CHANNELS, HIGH_CHANNELS)
        self.shortcut = BnReluConv(HIGH_CHANNELS, HIGH_CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        """Return features with context, of the shape of ``x`` (N, 48, H, W)."""
        full, *pooled = (scale(x) for scale in self.scales)
        context = self.processes(torch.cat([resized(scale, x.shape[2:]) + full for scale in pooled], dim=1))
        out: Tensor = self.compression(torch.cat([full, context], dim=1)) + self.shortcut(x)
        return out


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Return ``x`` (N, C, h, w) sampled at the pixels of ``flow`` (N, 2, H, W), each moved by its flow (Figure 21).

    The flow is (x, y) in half pixels of the output; outside ``x`` there are zeros.
    """
    height, width = flow.shape[2:]
    # Eleven bits of half precision would move the samples of a wide image by a tenth of a pixel.
    dtype = torch.promote_types(flow.dtype, torch.float32)
    rows = torch.linspace(-1.0, 1.0, height, dtype=dtype, device=flow.device)
    columns = torch.linspace(-1.0, 1.0, width, dtype=dtype, device=flow.device)
    base = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], dim=-1)
    step = torch.stack([flow[:, 0] / width, flow[:, 1] / height], dim=-1)
    return F.grid_sample(x, base + step, mode="bilinear", padding_mode="zeros", align_corners=True)


class FlowAlignmentAttentionFusion(nn.Module):
    """Warps both feature maps onto each other, then weighs pixels and channels (section 3.3.2, Figure 20)."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = nn.Conv2d(LOW_CHANNELS, HIGH_CHANNELS, 1, bias=False)
        self.down_h = nn.Conv2d(HIGH_CHANNELS, FLOW_CHANNELS, 1, bias=False)
        self.down_l = nn.Conv2d(HIGH_CHANNELS, FLOW_CHANNELS, 1, bias=False)
        self.flow_make = nn.Conv2d(2 * FLOW_CHANNELS, 4, 3, padding=1, bias=False)
        self.flow_gate = nn.Sequential(nn.Conv2d(2 * FLOW_CHANNELS, 1, 3, padding=1, bias=False), nn.Sigmoid())
        self.se = SqueezeExcite(HIGH_CHANNELS, _hidden_channels(HIGH_CHANNELS, 16))

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return the fusion (N, 48, H, W) of ``low`` (N, 16, H, W) and ``high`` (N, 48, h, w)."""
        detail = self.neck(low)
        semantic = F.interpolate(self.down_h(high), size=low.shape[2:], mode="bilinear", align_corners=True)
        both = torch.cat([semantic, self.down_l(detail)], dim=1)
        flow = self.flow_make(both)
        gate = self.flow_gate(both)
        out: Tensor = self.se(warp(high, flow[:, :2]) * gate + warp(detail, flow[:, 2:]) * (1 - gate))
        return out


class DecodeHead(nn.Module):
    """Context module, fusion and classifier, with the boundary branch that only training uses (section 3.6)."""

    def __init__(self, classes: int, boundary_head: bool) -> None:
        super().__init__()
        self.neck = SAPPM()
        self.fuse4 = FlowAlignmentAttentionFusion()
        self.dropout = nn.Dropout2d(DROPOUT)
        self.conv_seg = nn.Conv2d(HIGH_CHANNELS, classes, 1)
        self.conv = (
            nn.Sequential(
                ConvAct(LOW_CHANNELS, BOUNDARY_CHANNELS, 3, nn.ReLU),
                ConvAct(BOUNDARY_CHANNELS, BOUNDARY_CHANNELS, 3, nn.ReLU),
                nn.Conv2d(BOUNDARY_CHANNELS, 1, 1),
            )
            if boundary_head
            else None
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """Return logits (N, classes, H, W) of ``low`` (N, 16, H, W) and ``high`` (N, 48, h, w)."""
        out: Tensor = self.conv_seg(self.dropout(self.fuse4(low, self.neck(high))))
        return out


class AuxiliaryHead(nn.Module):
    """Two 3x3 convolutions and a classifier on the last features of the backbone: deep supervision (section 3.6)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(ConvBnAct(nn.Conv2d(HIGH_CHANNELS, HIGH_CHANNELS, 3, padding=1, bias=False), nn.ReLU) for _ in range(2))
        )
        self.dropout = nn.Dropout2d(DROPOUT)
        self.conv_seg = nn.Conv2d(HIGH_CHANNELS, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, classes, H, W) of ``x`` (N, 48, H, W)."""
        out: Tensor = self.conv_seg(self.dropout(self.convs(x)))
        return out


class MobileNetV3Sappm(nn.Module):
    """The whole network (section 3.5, Figure 2), for inputs of any size.

    247,651 parameters for two classes with the boundary branch, 233,730 without it; the auxiliary head's 41,762 are in
    neither. As the report counts (convolution multiply-accumulates, two for each BatchNorm output, one for each input
    of adaptive pooling, four for each output of a bilinear interpolation or warp), the deployed network costs 709.25 M
    at 512 x 512 and 135.87 M at 224 x 224. That leaves out the last interpolation, from a quarter of the size to the
    whole: it is outside the network that the report's tool counted, and adds 2.10 M and 0.40 M.
    """

    def __init__(self, classes: int = 2, boundary_head: bool = True, auxiliary_head: bool = True) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.decode_head = DecodeHead(classes, boundary_head)
        self.auxiliary_head = AuxiliaryHead(classes) if auxiliary_head else None

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return logits (N, classes, H, W) of preprocessed images (N, 3, H, W), and those of the training heads.

        Where the network has them, boundary logits (N, 1, H, W) and auxiliary logits (N, classes, H, W) follow. All
        are interpolated to the size of the input, where the losses compare them with the truth.
        """
        low, high = self.backbone(image)
        logits = [self.decode_head(low, high)]
        if self.decode_head.conv is not None:
            logits.append(self.decode_head.conv(low))
        if self.auxiliary_head is not None:
            logits.append(self.auxiliary_head(high))
        outputs = tuple(resized(one, image.shape[2:]) for one in logits)
        return outputs if len(outputs) > 1 else outputs[0]
