"""A small network with a fold and a merge, exported, certified and measured: one whole chain on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from deploykit.network import build_network
from deploykit.recipe import load_recipe

NETWORK = """
import torch.nn.functional as F
from torch import nn


def conv_bn(c, k, kernel, **options):
    return nn.Sequential(nn.Conv2d(c, k, kernel, bias=False, **options), nn.BatchNorm2d(k))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 16, 3, stride=2, padding=1)
        self.wide, self.point = conv_bn(16, 16, 3, padding=1), conv_bn(16, 16, 1)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.wide(x) + self.point(x) + x))
"""
RECIPE = """
format_version = 1
name = "chain"
description = "a small network of this test"
license = "MIT"
source = "this test"

[network]
factory = "chain_network:Net"

[[inputs]]
name = "image"
shape = [1, 3, 32, 32]
mean = [127.5]
scale = [0.0078]
source = "this test"

[[outputs]]
name = "scores"
meaning = "scores"
classes = ["background", "person"]

[checkpoint]
path = "chain.pt"

[tolerances.fp32]
max_abs_error = 1e-3
reason = "runtimes sum in another order"
"""


def write_chain(folder: Path) -> Path:
    """Write network, checkpoint with random statistics and recipe into ``folder``; return the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chain_network.py").write_text(NETWORK, "utf-8")
    recipe = folder / "chain.toml"
    recipe.write_text(RECIPE, "utf-8")
    network = build_network(load_recipe(recipe))
    generator = torch.Generator().manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    torch.save(network.state_dict(), folder / "chain.pt")
    return recipe
