"""Cross-entropy on the mask, once more along its boundary, and on the edge head where there is one.

Sources: SINet, section 3.4 (the boundary term, weight 0.9); RCRNet, equation 5 (the edge head, weight 0.3).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

BOUNDARY_WEIGHT = 0.9
EDGE_WEIGHT = 0.3


def boundary(mask: Tensor, width: int) -> Tensor:
    """Return 1 where a square of odd ``width`` around a pixel of ``mask`` (N, H, W) holds both classes."""
    values = mask.unsqueeze(1).float()
    dilated = F.max_pool2d(values, width, 1, width // 2)
    eroded = -F.max_pool2d(-values, width, 1, width // 2)
    return (dilated - eroded).squeeze(1)


def segmentation_loss(output: Tensor | tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
    """Return the loss of logits (N, 2, H, W), or of logits and edge logits, against ``mask`` (N, H, W) of 0 and 1."""
    logits, edges = output if isinstance(output, tuple) else (output, None)
    each = F.cross_entropy(logits.float(), mask, reduction="none")
    height = mask.shape[-1]
    band = boundary(mask, max(3, height // 24 * 2 + 1))
    loss = each.mean() + BOUNDARY_WEIGHT * (each * band).sum() / band.sum().clamp(min=1)
    if edges is not None:
        target = F.max_pool2d(boundary(mask, 3).unsqueeze(1), 2).squeeze(1).long()
        loss = loss + EDGE_WEIGHT * F.cross_entropy(edges.float(), target)
    return loss
