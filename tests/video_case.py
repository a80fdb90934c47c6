"""A recipe with a small network for video: it takes its own probability of the frame before as a second input."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from deploykit.network import build_network
from deploykit.recipe import load_recipe

NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn


class Follow(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(4, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.classify = nn.Conv2d(6, 3, 1)

    def forward(self, image, prior):
        scores = self.classify(F.relu(self.norm(self.mix(torch.cat([image, prior], 1)))))
        return scores, scores[:, :1]


class Coarse(Follow):
    def forward(self, image, prior):
        scores, edge = super().forward(image, prior)
        return F.avg_pool2d(scores, 2), edge
"""

RECIPE = """
format_version = 1
name = "follow"
description = "a small network for video"
license = "Apache-2.0"
source = "this test"

[network]
factory = "video_networks.nets:{factory}"

[[inputs]]
name = "image"
shape = [1, 3, 32, 48]
color_order = "bgr"
mean = [104.0, 117.0, 123.0]
scale = [0.017, 0.018, 0.019]
resize = {{ rule = "letterbox", pad_value = 128 }}
source = "this test"

[[inputs]]
name = "prior"
kind = "tensor"
shape = [1, 1, 32, 48]
value_range = [0.0, 1.0]
feedback = {{ output = "scores", class_name = "hair", first = 0.25 }}
source = "this test"

[[outputs]]
name = "scores"
meaning = "one score per class"
classes = ["background", "hair", "skin"]

[[outputs]]
name = "edge"
meaning = "for training only"
deploy = false

[checkpoint]
path = "follow.pt"
"""


def write_video_case(folder: Path, factory: str = "Follow") -> Path:
    """Write the networks, a checkpoint with random statistics and the recipe into ``folder``; return the recipe."""
    package = folder / "video_networks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", "utf-8")
    (package / "nets.py").write_text(NETWORK, "utf-8")
    recipe = folder / "follow.toml"
    recipe.write_text(RECIPE.format(factory=factory), "utf-8")
    network = build_network(load_recipe(recipe))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        network.mix.weight.normal_(0, 0.4, generator=generator)
        # What was seen before counts for as much as what is seen now.
        network.mix.weight[:, 3:] *= 4
        network.classify.weight.normal_(0, 1, generator=generator)
        norm: nn.BatchNorm2d = network.norm
        norm.running_mean.normal_(0, 0.5, generator=generator)
        norm.running_var.uniform_(0.3, 2.0, generator=generator)
        norm.weight.uniform_(0.5, 1.5, generator=generator)
        norm.bias.normal_(0, 0.5, generator=generator)
    torch.save(network.state_dict(), folder / "follow.pt")
    return recipe
