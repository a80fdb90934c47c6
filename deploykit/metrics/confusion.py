"""How the pixels of a mask and of the truth fall together: the counts from which overlap and accuracy follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Confusion:
    """Numbers of pixels; positive is the portrait. The four add up to the size of the image."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def pixels(self) -> int:
        """All pixels of the image."""
        return self.true_positive + self.false_positive + self.false_negative + self.true_negative


def require_masks(found: Mask, expected: Mask) -> None:
    """Raise ValueError unless both are boolean masks (H, W) of one size with at least one pixel."""
    for name, mask in (("found", found), ("expected", expected)):
        if mask.dtype != np.bool_ or mask.ndim != 2 or mask.size == 0:
            raise ValueError(f"{name}: a boolean mask (H, W) is needed, not {mask.dtype} of shape {mask.shape}")
    if found.shape != expected.shape:
        raise ValueError(f"masks of different sizes: found {found.shape}, expected {expected.shape}")


def confusion(found: Mask, expected: Mask) -> Confusion:
    """Return the counts of ``found`` against the truth ``expected``, both (H, W). Raises ValueError as above."""
    require_masks(found, expected)
    both = int(np.count_nonzero(found & expected))
    positive, true = int(np.count_nonzero(found)), int(np.count_nonzero(expected))
    return Confusion(both, positive - both, true - both, found.size - positive - true + both)
