"""Small networks whose masks are known, and folders of images and masks for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

RECIPE = """
format_version = 1
name = "{name}"
description = "bright pixels are the portrait"
license = "Apache-2.0"
source = "this test"

[network]
factory = "{name}_network:build"

[[inputs]]
name = "image"
shape = [1, 3, 64, 96]
scale = [0.00392156862745098]
resize = {{ rule = "{rule}", filter = "nearest" }}
source = "this test"
{inputs}
[[outputs]]
name = "logits"
meaning = "scores"
classes = ["background", "portrait"]

[checkpoint]
path = "{name}.pt"
"""

PRIOR = """
[[inputs]]
name = "prior"
kind = "tensor"
shape = [1, 1, 64, 96]
value_range = [0.0, 1.0]
feedback = { output = "logits", class_name = "portrait", first = 0.0 }
source = "this test"
"""

# One weight, so that there is a checkpoint: pixels brighter than the level are the portrait.
BRIGHT = """
import torch
from torch import nn


class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Conv2d(3, 2, 1)

    def forward(self, image):
        return self.gain(image)


def build():
    return Bright()
"""

# The portrait is everywhere where it was nowhere in the frame before, and the other way round.
BLINKING = """
import torch
from torch import nn


class Blinking(nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = nn.Conv2d(4, 2, 1)

    def forward(self, image, prior):
        return self.gain(torch.cat([image, prior], dim=1))


def build():
    return Blinking()
"""


def write_recipe(folder: Path, name: str = "bright", *, rule: str = "stretch", level: float = 0.5) -> Path:
    """Write a recipe, its network and its checkpoint; the network's masks are exact. Return the recipe's path."""
    folder.mkdir(parents=True, exist_ok=True)
    video = name.startswith("blinking")
    text = RECIPE.format(name=name, rule=rule, inputs=PRIOR if video else "")
    (folder / f"{name}.toml").write_text(text, "utf-8")
    (folder / f"{name}_network.py").write_text(BLINKING if video else BRIGHT, "utf-8")
    torch.save(state(level, video), folder / f"{name}.pt")
    return folder / f"{name}.toml"


def state(level: float, video: bool = False) -> dict[str, torch.Tensor]:
    """Return weights that give the portrait the score 40 (brightness - level), or for video 40 (0.5 - prior)."""
    weight = torch.zeros(2, 4 if video else 3, 1, 1)
    bias = torch.zeros(2)
    if video:
        weight[1, 3], bias[1] = -40.0, 20.0
    else:
        weight[1, :3], bias[1] = 40.0 / 3, -40.0 * level
    return {"gain.weight": weight, "gain.bias": bias}


def write_pair(
    folder: Path, name: str, mask: np.ndarray, shown: np.ndarray | None = None, *, full: int = 255
) -> tuple[Path, Path]:
    """Write a true mask, and an image that is white where ``shown`` (else the mask) is set. Return both paths."""
    image_path, mask_path = folder / "images" / f"{name}.png", folder / "masks" / f"{name}.png"
    for path in (image_path, mask_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    white = (mask if shown is None else shown).astype(np.uint8) * 255
    cv2.imwrite(str(image_path), np.repeat(white[:, :, None], 3, axis=2))
    cv2.imwrite(str(mask_path), mask.astype(np.uint8) * np.uint8(full))
    return image_path, mask_path


def box(height: int = 64, width: int = 96, *, top: int = 8, left: int = 16) -> np.ndarray:
    """A mask with one rectangle down to the lower side."""
    mask = np.zeros((height, width), bool)
    mask[top:, left : width - left] = True
    return mask
