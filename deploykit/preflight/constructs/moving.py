"""What moves, joins or picks values, and attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.preflight.constructs.network import CHANNELS, SIZE, Construct, of


def _shuffle(x: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(x.shape)


def _windows(x: Tensor) -> Tensor:
    """Return ``x`` cut into 7x7 windows and put together again after a softmax within each."""
    parts = x.view(1, CHANNELS, 3, 7, 4, 7).permute(0, 2, 4, 3, 5, 1).reshape(12, 49, CHANNELS)
    parts = torch.softmax(parts, 1) * 49
    return parts.view(1, 3, 4, 7, 7, CHANNELS).permute(0, 5, 1, 3, 2, 4).reshape(1, CHANNELS, *SIZE)


MOVING: tuple[Construct, ...] = (
    Construct("concat", "over channels", of(lambda x: torch.cat([x, F.relu(x)], 1))),
    Construct("concat over rows", "two maps, one below the other", of(lambda x: torch.cat([x, F.relu(x)], 2))),
    Construct(
        "split",
        "6 and 2 channels, joined in the other order",
        of(lambda x: torch.cat([*torch.split(x, [6, 2], 1)[::-1]], 1)),
    ),
    Construct("chunk", "in two halves, multiplied", of(lambda x: x.chunk(2, 1)[0] * x.chunk(2, 1)[1])),
    Construct("channel shuffle", "reshape, transpose, reshape", of(_shuffle)),
    Construct("slice with a step", "every second row and column", of(lambda x: x[:, :, ::2, 1::2])),
    Construct("flip", "left to right", of(lambda x: torch.flip(x, [3]))),
    Construct("roll", "by 3 rows and -2 columns", of(lambda x: torch.roll(x, (3, -2), (2, 3)))),
    Construct("windows", "7x7, as Swin has it", of(_windows)),
    Construct("unfold", "3x3 patches", of(lambda x: F.unfold(x, 3, padding=1).view(1, 72, *SIZE))),
    Construct("fold", "overlapping 3x3 patches", of(lambda x: F.fold(F.unfold(x, 3, padding=1), SIZE, 3, padding=1))),
    Construct(
        "index by a constant", "channels in another order", of(lambda x: x[:, torch.tensor([3, 1, 0, 2, 7, 6, 4, 5])])
    ),
    Construct(
        "gather",
        "by the order of channels",
        of(lambda x: torch.gather(x, 1, x.mean((2, 3), keepdim=True).argsort(1).expand(x.shape))),
    ),
    Construct("stack", "and mean", of(lambda x: torch.stack([x, F.relu(x), -x], 1).mean(1))),
    Construct("repeat", "2 times over channels", of(lambda x: x.repeat(1, 2, 1, 1))),
    Construct("repeat interleave", "each row twice", of(lambda x: x.repeat_interleave(2, 2))),
    Construct("lower triangle", "of each map", of(torch.tril)),
)

PICKING: tuple[Construct, ...] = (
    Construct(
        "argmax",
        "over channels of the pooled map",
        of(lambda x: x + x.mean((2, 3), keepdim=True).argmax(1, keepdim=True).to(x.dtype)),
    ),
    Construct("top k", "the 3 largest of 8 channels", of(lambda x: torch.topk(x, 3, 1)[0])),
    Construct("sort", "over channels", of(lambda x: torch.sort(x, 1)[0])),
    Construct("cumulative sum", "over columns", of(lambda x: torch.cumsum(x, 3) / 8)),
    Construct(
        "one hot",
        "of the largest channel of the pooled map",
        of(lambda x: x * F.one_hot(x.mean((2, 3)).argmax(1), CHANNELS)[:, :, None, None].to(x.dtype)),
    ),
)


class _Attention(nn.Module):
    """Self-attention of positions with two heads of 4 channels, by the function ``scores``."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(CHANNELS, 3 * CHANNELS, 1)
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 3)
        query, key, value = self.qkv(pooled).reshape(1, 3, 2, CHANNELS // 2, -1).transpose(3, 4).unbind(1)
        if self.kind == "sdpa":
            out = F.scaled_dot_product_attention(query, key, value)
        elif self.kind == "einsum":
            weights = torch.softmax(torch.einsum("bhqc,bhkc->bhqk", query, key) / 2, -1)
            out = torch.einsum("bhqk,bhkc->bhqc", weights, value)
        else:
            out = torch.softmax(query @ key.transpose(-2, -1) / 2, -1) @ value
        return out.transpose(2, 3).reshape(pooled.shape)


class _MultiHead(nn.Module):
    """``nn.MultiheadAttention`` over the positions of a pooled map."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(CHANNELS, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 3)
        tokens = pooled.flatten(2).transpose(1, 2)
        out: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return out.transpose(1, 2).reshape(pooled.shape)


ATTENTION: tuple[Construct, ...] = (
    Construct("attention by matmul", "softmax(q·kᵀ)·v", lambda: _Attention("matmul")),
    Construct("attention by einsum", "the same sums", lambda: _Attention("einsum")),
    Construct("scaled_dot_product_attention", "the one operation", lambda: _Attention("sdpa")),
    Construct("nn.MultiheadAttention", "without its weights", _MultiHead),
    Construct(
        "channel attention by matmul",
        "x·xᵀ over positions",
        of(
            lambda x: (torch.softmax(x.flatten(2) @ x.flatten(2).transpose(1, 2) / 588, -1) @ x.flatten(2)).view(
                x.shape
            )
        ),
    ),
)
