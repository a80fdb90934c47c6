"""Cross entropy, the first term of every paper's loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def full_precision(logits: Tensor) -> Tensor:
    """Return ``logits`` in float32, or unchanged where they are float64: a loss is never computed in half precision."""
    return logits if logits.dtype is torch.float64 else logits.float()


def cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Return ``-log p`` of every pixel (N, H, W), p being the softmax probability of its true class.

    ``logits`` are (N, classes, H, W) and ``mask`` is (N, H, W), int64. PortraitNet, equations 1 and 4; the losses take
    the mean of it where the equation prints a sum, as the released code does.
    """
    return F.cross_entropy(full_precision(logits), mask, reduction="none")
