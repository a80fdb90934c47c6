"""A recipe with the smallest network that a pipeline can do everything with: a folded convolution and a head."""

from __future__ import annotations

from pathlib import Path

from network_files import write_network
from targets.small_case import randomize

NETWORK = """
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        return self.head(nn.functional.relu(self.norm(self.stem(x))))
"""
RECIPE = """
format_version = 1
name = "tiny"
description = "a tiny network of this test"
license = "MIT"
source = "this test"

[network]
factory = "tiny_networks.nets:Tiny"

[[inputs]]
name = "photo"
shape = [1, 3, 32, 32]
mean = [104.0, 117.0, 123.0]
scale = [0.017, 0.018, 0.019]
source = "this test"

[[outputs]]
name = "scores"
meaning = "one score per class"
classes = ["background", "portrait"]

[checkpoint]
path = "tiny.pt"

[expected]
fold_batch_norm = 1

[tolerances.fp16]
relative_l2 = 1e-9
reason = "no file in half precision is as exact as that: the export of fp16 has to fail"

[pipeline]
targets = ["onnx"]
precisions = ["fp32", "fp16"]
samples = 2
clips = 1
"""


def write_tiny(folder: Path) -> Path:
    """Write the network, a checkpoint with random statistics and the recipe into ``folder``; return the recipe."""
    return write_network(folder, "tiny_networks", NETWORK, RECIPE, randomize)
