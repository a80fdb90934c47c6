"""Pooling, resizing and warping."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.preflight.constructs.network import CHANNELS, Construct, Operator, of

POOLING: tuple[Construct, ...] = (
    Construct("max pooling", "3x3, stride 2, padding 1", of(lambda x: F.max_pool2d(x, 3, 2, 1))),
    Construct("max pooling, ceil_mode", "3x3, stride 2", of(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True))),
    Construct("max pooling, dilated", "3x3, dilation 2", of(lambda x: F.max_pool2d(x, 3, 1, 1, 2))),
    Construct(
        "max pooling with indices",
        "and max unpooling",
        of(lambda x: F.max_unpool2d(*F.max_pool2d(x[:, :, :20], 2, 2, return_indices=True), [2, 2])),
    ),
    Construct("average pooling", "3x3, stride 2", of(lambda x: F.avg_pool2d(x, 3, 2))),
    Construct("average pooling, padded", "the border counts as zeros", of(lambda x: F.avg_pool2d(x, 3, 2, 1))),
    Construct(
        "average pooling, border not counted",
        "count_include_pad=False",
        of(lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)),
    ),
    Construct(
        "average pooling, ceil_mode",
        "3x3, stride 2, odd and even sides",
        of(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)),
    ),
    Construct(
        "average pooling, ceil_mode, padded",
        "the padding counts, what hangs over does not",
        of(lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True)),
    ),
    Construct(
        "average pooling, divisor", "divisor_override=5", of(lambda x: F.avg_pool2d(x, 3, 2, divisor_override=5))
    ),
    Construct("global pooling", "adaptive, to one value", of(lambda x: x * F.adaptive_avg_pool2d(x, 1))),
    Construct("adaptive pooling, dividing", "21x28 to 7x7", of(lambda x: F.adaptive_avg_pool2d(x, 7))),
    Construct("adaptive pooling, not dividing", "21x28 to 5x9", of(lambda x: F.adaptive_avg_pool2d(x, (5, 9)))),
    Construct("adaptive max pooling, dividing", "21x28 to 7x7", of(lambda x: F.adaptive_max_pool2d(x, 7))),
    Construct("adaptive max pooling, not dividing", "21x28 to 5x9", of(lambda x: F.adaptive_max_pool2d(x, (5, 9)))),
)


class _Warp(nn.Module):
    """grid_sample at the identity plus a predicted flow that leaves the map at its borders."""

    def __init__(self, mode: str, padding: str, align_corners: bool) -> None:
        super().__init__()
        self.flow = nn.Conv2d(CHANNELS, 2, 3, padding=1)
        self.mode, self.padding, self.align_corners = mode, padding, align_corners

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows = torch.linspace(-1, 1, height).view(-1, 1).expand(height, width)
        columns = torch.linspace(-1, 1, width).view(1, -1).expand(height, width)
        grid = torch.stack([columns, rows], 2)[None]
        flow = self.flow(x).permute(0, 2, 3, 1) / torch.tensor([width, height]).to(x)
        return F.grid_sample(x, grid + 2 * flow, self.mode, self.padding, self.align_corners)


class _NearestWarp(nn.Module):
    """grid_sample of the nearest pixel, at positions that are a twentieth of a pixel from the next one or more."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        rows, columns = ((2 * (0.9 * torch.arange(size) + 0.75) + 1) / size - 1 for size in (height, width))
        grid = torch.stack([columns.expand(height, width), rows[:, None].expand(height, width)], 2)[None]
        return F.grid_sample(x, grid.to(x), "nearest", "zeros", False)


def _warp(mode: str, padding: str, align_corners: bool) -> Operator:
    return lambda: _Warp(mode, padding, align_corners)


def _resize(mode: str, **options: object) -> Operator:
    return of(lambda x: F.interpolate(x, mode=mode, **options))  # type: ignore[arg-type]


RESIZING: tuple[Construct, ...] = (
    Construct("bilinear resize", "to 33x45", _resize("bilinear", size=(33, 45), align_corners=False)),
    Construct("bilinear resize, align_corners", "to 33x45", _resize("bilinear", size=(33, 45), align_corners=True)),
    Construct("bilinear resize, smaller", "to 13x11", _resize("bilinear", size=(13, 11), align_corners=False)),
    Construct(
        "bilinear resize, smaller, align_corners", "to 13x11", _resize("bilinear", size=(13, 11), align_corners=True)
    ),
    Construct("bilinear resize by a factor", "2.5 times", _resize("bilinear", scale_factor=2.5, align_corners=False)),
    Construct(
        "bilinear resize, antialias",
        "to 13x11",
        _resize("bilinear", size=(13, 11), align_corners=False, antialias=True),
    ),
    Construct("nearest resize", "2 times", _resize("nearest", scale_factor=2)),
    Construct("nearest resize, uneven", "to 33x45", _resize("nearest", size=(33, 45))),
    Construct("nearest-exact resize", "to 33x45", _resize("nearest-exact", size=(33, 45))),
    Construct("bicubic resize", "to 33x45", _resize("bicubic", size=(33, 45), align_corners=False)),
    Construct("bicubic resize, align_corners", "to 33x45", _resize("bicubic", size=(33, 45), align_corners=True)),
    Construct("area resize", "to 5x9", _resize("area", size=(5, 9))),
    Construct("pixel shuffle", "by 2", of(lambda x: F.pixel_shuffle(x, 2))),
    Construct("pixel unshuffle", "by 2", of(lambda x: F.pixel_unshuffle(x[:, :, :20], 2))),
    Construct("grid_sample", "bilinear, zeros outside", _warp("bilinear", "zeros", False)),
    Construct("grid_sample, align_corners", "bilinear, zeros outside", _warp("bilinear", "zeros", True)),
    Construct("grid_sample, border", "bilinear", _warp("bilinear", "border", False)),
    Construct("grid_sample, reflection", "bilinear", _warp("bilinear", "reflection", False)),
    Construct("grid_sample, nearest", "at constant positions", _NearestWarp),
    Construct("grid_sample, bicubic", "zeros outside", _warp("bicubic", "zeros", False)),
)
