"""Small networks in the manner of those that vision users bring: each holds the constructs of its family."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, kernel: int, act: type[nn.Module] | None, **options: int) -> nn.Sequential:
    layers = [
        nn.Conv2d(inputs, outputs, kernel, padding=options.pop("padding", kernel // 2), bias=False, **options),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([act()] if act else []))


class InvertedResidual(nn.Module):
    """MobileNetV2: expand, depthwise, project without activation, add where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * 3
        self.added = stride == 1 and inputs == outputs
        self.layers = nn.Sequential(
            conv_bn(inputs, hidden, 1, nn.ReLU6),
            conv_bn(hidden, hidden, 3, nn.ReLU6, stride=stride, groups=hidden),
            conv_bn(hidden, outputs, 1, None),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.added else y


class MobileNetV2(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(3, 8, 3, nn.ReLU6, stride=2),
            InvertedResidual(8, 8, 1),
            InvertedResidual(8, 12, 2),
            InvertedResidual(12, 12, 1),
            conv_bn(12, 24, 1, nn.ReLU6),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(24, 10))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.classifier(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))
        return y


class SqueezeExcitation(nn.Module):
    """MobileNetV3: global pooling, two 1x1 convolutions, a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(self.up(y))


class MobileNetV3(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 8, 3, nn.Hardswish, stride=2)
        self.expand = conv_bn(8, 16, 1, nn.Hardswish)
        self.depthwise = conv_bn(16, 16, 5, nn.Hardswish, stride=2, groups=16)
        self.gate = SqueezeExcitation(16)
        self.project = conv_bn(16, 8, 1, None)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.Hardswish(), nn.Linear(16, 10))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.project(self.gate(self.depthwise(self.expand(self.stem(x)))))
        return self.head(features.mean((2, 3))), features


class Bottleneck(nn.Module):
    """ResNet: 1x1, 3x3, 1x1, with a strided 1x1 convolution beside it where the shape changes."""

    def __init__(self, inputs: int, width: int, stride: int, groups: int = 1) -> None:
        super().__init__()
        outputs = width * 4
        self.layers = nn.Sequential(
            conv_bn(inputs, width, 1, nn.ReLU),
            conv_bn(width, width, 3, nn.ReLU, stride=stride, groups=groups),
            conv_bn(width, outputs, 1, None),
        )
        self.beside = conv_bn(inputs, outputs, 1, None, stride=stride) if stride > 1 or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + (x if self.beside is None else self.beside(x)))


class ResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 8, 7, nn.ReLU, stride=2), nn.MaxPool2d(3, 2, padding=1))
        self.blocks = nn.Sequential(Bottleneck(8, 4, 1), Bottleneck(16, 8, 2, groups=2), Bottleneck(32, 8, 1))
        self.dense = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(torch.flatten(F.adaptive_avg_pool2d(self.blocks(self.stem(x)), (1, 1)), 1))
        return y


class UNet(nn.Module):
    """One decoder step by transposed convolution, one by bilinear upsampling, skips joined by channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = conv_bn(3, 8, 3, nn.ReLU), conv_bn(8, 12, 3, nn.LeakyReLU)
        self.deep = conv_bn(12, 16, 3, nn.ReLU)
        self.up = nn.ConvTranspose2d(16, 12, 2, stride=2)
        self.third, self.last = conv_bn(24, 8, 3, nn.ELU), conv_bn(16, 8, 3, nn.SiLU)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.first(x)
        middle = self.second(F.max_pool2d(fine, 2, 2))
        raised = self.third(torch.cat([middle, self.up(self.deep(F.max_pool2d(middle, 2, 2)))], 1))
        raised = F.interpolate(raised, scale_factor=2, mode="bilinear", align_corners=False)
        y: Tensor = self.out(self.last(torch.cat([fine, raised], 1)))
        return y


class DeepLab(nn.Module):
    """Atrous pyramid with image pooling, and an auxiliary output, both at the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(conv_bn(3, 8, 3, nn.ReLU, stride=2), conv_bn(8, 16, 3, nn.ReLU, stride=2))
        self.point = conv_bn(16, 8, 1, nn.ReLU)
        self.atrous = nn.ModuleList(conv_bn(16, 8, 3, nn.ReLU, dilation=rate, padding=rate) for rate in (2, 3, 5))
        self.image = conv_bn(16, 8, 1, nn.ReLU)
        self.project = conv_bn(40, 8, 1, nn.ReLU)
        self.out, self.auxiliary = nn.Conv2d(8, 3, 1), nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.trunk(x)
        pooled = self.image(F.adaptive_avg_pool2d(features, 1))
        pooled = F.interpolate(pooled, size=features.shape[-2:], mode="bilinear", align_corners=False)
        pyramid = [self.point(features), *(layer(features) for layer in self.atrous), pooled]
        scores, beside = self.out(self.project(torch.cat(pyramid, 1))), self.auxiliary(features)
        size = x.shape[-2:]
        return (
            F.interpolate(scores, size=size, mode="bilinear", align_corners=False),
            F.interpolate(beside, size=size, mode="bilinear", align_corners=True),
        )


def randomized(network: nn.Module) -> nn.Module:
    """The network in eval mode with random statistics: a fresh BatchNorm is near the identity and hides faults."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn(module.num_features) * 0.3
            module.running_var = torch.rand(module.num_features) + 0.5
            nn.init.normal_(module.weight, 1.0, 0.3)
            nn.init.normal_(module.bias, 0.0, 0.3)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, -0.5, 1.5)
    return network.eval()
