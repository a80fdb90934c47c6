"""One small network for each operator that converters find hard, each with the likeliest mistake about it.

``mistaken=True`` builds the same layers with that mistake: what a file that is wrong in this way would give.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8
SIZE = (21, 28)


class HardNetwork(nn.Module):
    """A convolution with BatchNorm (values of both signs), the operator, and a 1x1 convolution to three scores."""

    def __init__(self, mistaken: bool = False, channels: int = CHANNELS) -> None:
        super().__init__()
        self.mistaken = mistaken
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS))
        self.head = nn.Conv2d(channels, 3, 1)

    def operator(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, photo: Tensor) -> Tensor:
        out: Tensor = self.head(self.operator(self.stem(photo)))
        return out


class GridSample(HardNetwork):
    """Warping by a predicted flow that leaves the map at its borders."""

    align_corners, padding_mode = True, "zeros"

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken)
        self.flow = nn.Conv2d(CHANNELS, 2, 3, padding=1)

    def operator(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = torch.linspace(-1, 1, height).view(-1, 1).expand(height, width)
        columns = torch.linspace(-1, 1, width).view(1, -1).expand(height, width)
        grid = torch.stack([columns, rows], 2)[None]
        flow = self.flow(x).permute(0, 2, 3, 1) / torch.tensor([width, height]).to(x)
        aligned = self.align_corners != self.mistaken
        return F.grid_sample(x, grid + 2 * flow, "bilinear", self.padding_mode, align_corners=aligned)


class GridSampleHalfPixel(GridSample):
    align_corners = False


class GridSampleBorder(GridSample):
    padding_mode = "border"


class AdaptivePooling(HardNetwork):
    """Adaptive average pooling to sizes that divide neither side, as a pyramid pooling module has it."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken, 2 * CHANNELS)

    def _pooled(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.mistaken:
            return F.adaptive_avg_pool2d(x, size)
        # Windows of one size and stride, which is what holds where the sizes divide.
        kernel = (x.shape[2] // size[0], x.shape[3] // size[1])
        return F.avg_pool2d(x, kernel, kernel)[:, :, : size[0], : size[1]]

    def operator(self, x: Tensor) -> Tensor:
        maps = [self._pooled(x, size) for size in ((2, 3), (5, 9))]
        return torch.cat([F.interpolate(y, size=SIZE, mode="bilinear", align_corners=False) for y in maps], 1)


class TfSamePadding(HardNetwork):
    """Stride 2 with TensorFlow's SAME padding: the odd row goes to the bottom and the right."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken, 2 * CHANNELS)
        self.conv3 = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, groups=CHANNELS, bias=False)
        self.conv5 = nn.Conv2d(CHANNELS, CHANNELS, 5, stride=2)

    def _same(self, x: Tensor, convolution: nn.Conv2d) -> Tensor:
        kernel, stride = convolution.kernel_size[0], convolution.stride[0]
        height, width = (max((-(-size // stride) - 1) * stride + kernel - size, 0) for size in x.shape[2:])
        before = [(total + 1) // 2 if self.mistaken else total // 2 for total in (width, height)]
        padded = F.pad(x, [before[0], width - before[0], before[1], height - before[1]])
        out: Tensor = convolution(padded)
        return out

    def operator(self, x: Tensor) -> Tensor:
        return torch.cat([self._same(x, self.conv3), self._same(x, self.conv5)], 1)


class DilatedFactorized(HardNetwork):
    """1x3 then 3x1, dilated: dense as in ELB, and depthwise."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken)
        own = (2, 4)
        layers: list[nn.Module] = []
        for dilation, groups in zip(own[::-1] if mistaken else own, (1, CHANNELS), strict=True):
            for kernel, padding, steps in (
                ((1, 3), (0, dilation), (1, dilation)),
                ((3, 1), (dilation, 0), (dilation, 1)),
            ):
                layers.append(nn.Conv2d(CHANNELS, CHANNELS, kernel, 1, padding, steps, groups, bias=False))
            layers += [nn.BatchNorm2d(CHANNELS), nn.ReLU()]
        self.pairs = nn.Sequential(*layers)

    def operator(self, x: Tensor) -> Tensor:
        out: Tensor = self.pairs(x)
        return out


class HardActivations(HardNetwork):
    """Hard swish, and a squeeze-excite gate that ends in a hard sigmoid; the mistake is the smooth pair."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken)
        self.gate = nn.Conv2d(CHANNELS, CHANNELS, 1)

    def operator(self, x: Tensor) -> Tensor:
        swish, sigmoid = (F.silu, torch.sigmoid) if self.mistaken else (F.hardswish, F.hardsigmoid)
        out: Tensor = swish(4 * x) * sigmoid(4 * self.gate(F.adaptive_avg_pool2d(x, 1))) + sigmoid(4 * x)
        return out


class TransposedConvolution(HardNetwork):
    """Doubling by 4x4 transposed convolutions of stride 2, dense and depthwise; the mistake is an unflipped kernel."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken)
        self.dense = nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, stride=2, padding=1, bias=False)
        self.depthwise = nn.ConvTranspose2d(CHANNELS, CHANNELS, 4, stride=2, padding=1, groups=CHANNELS)

    def operator(self, x: Tensor) -> Tensor:
        weights = [self.dense.weight, self.depthwise.weight]
        if self.mistaken:
            weights = [weight.flip(2, 3) for weight in weights]
        y = F.conv_transpose2d(x, weights[0], None, 2, 1)
        return F.conv_transpose2d(F.relu(y), weights[1], self.depthwise.bias, 2, 1, 0, CHANNELS)


class BilinearResize(HardNetwork):
    """Larger and smaller by ratios that are no whole numbers."""

    align_corners = True

    def operator(self, x: Tensor) -> Tensor:
        aligned = self.align_corners != self.mistaken
        smaller = F.interpolate(x, size=(13, 11), mode="bilinear", align_corners=aligned)
        return F.interpolate(smaller, size=(33, 45), mode="bilinear", align_corners=aligned)


class BilinearResizeHalfPixel(BilinearResize):
    align_corners = False


class ChannelShuffle(HardNetwork):
    """Grouped convolutions with their channels dealt out between them."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__(mistaken)
        self.first = nn.Conv2d(CHANNELS, CHANNELS, 1, groups=2, bias=False)
        self.second = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=4, bias=False)

    def operator(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        groups = 4 if self.mistaken else 2
        y = self.first(x).view(batch, groups, channels // groups, height, width)
        out: Tensor = self.second(y.transpose(1, 2).reshape(x.shape))
        return out


class CeilPooling(HardNetwork):
    """Max pooling that rounds its size up: its last windows hang over the border, which counts as nothing."""

    def operator(self, x: Tensor) -> Tensor:
        below = F.max_pool2d(x, 2, 2, ceil_mode=True)
        if self.mistaken:  # a border of zeros, which are larger than negative values
            x, below = F.pad(x, [0, 1, 0, 1]), F.max_pool2d(F.pad(x, [0, 0, 0, 1]), 2, 2)
        wide = F.max_pool2d(x, 3, 2, ceil_mode=True)[:, :, : below.shape[2] - 1]
        return torch.cat([below, wide], 2)


NETWORKS: dict[str, type[HardNetwork]] = {
    network.__name__: network
    for network in (
        GridSample,
        GridSampleHalfPixel,
        GridSampleBorder,
        AdaptivePooling,
        TfSamePadding,
        DilatedFactorized,
        HardActivations,
        TransposedConvolution,
        BilinearResize,
        BilinearResizeHalfPixel,
        ChannelShuffle,
        CeilPooling,
    )
}


# Warping has its own tests and costs TFLite's converter most.
TOGETHER = tuple(name for name in NETWORKS if not name.startswith("GridSample"))


class Together(nn.Module):
    """Several of them side by side, one output each, named as the network in small letters."""

    def __init__(self, mistaken: bool = False) -> None:
        super().__init__()
        self.networks = nn.ModuleDict({name.lower(): NETWORKS[name](mistaken) for name in TOGETHER})

    def forward(self, photo: Tensor) -> tuple[Tensor, ...]:
        return tuple(network(photo) for network in self.networks.values())
