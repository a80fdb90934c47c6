"""A recipe with a network that the package has never seen: every construct that a target finds hard, at 64x64."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from deploykit.network import build_network
from deploykit.recipe import load_recipe

NETWORK = '''
import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(c, k, kernel, **options):
    return nn.Sequential(nn.Conv2d(c, k, kernel, bias=False, **options), nn.BatchNorm2d(k))


class RepVGG(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.square, self.point = conv_bn(c, c, 3, padding=1), conv_bn(c, c, 1)
        self.identity = nn.BatchNorm2d(c)

    def forward(self, x):
        return F.relu(self.square(x) + self.point(x) + self.identity(x))


class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.reduce, self.slope, self.expand = nn.Linear(c, c // 2), nn.PReLU(c // 2), nn.Linear(c // 2, c)

    def forward(self, x):
        gate = torch.sigmoid(self.expand(self.slope(self.reduce(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class Small(nn.Module):
    """Scores at the size of the input, and an edge map that only training uses."""

    def __init__(self, classes=2):
        super().__init__()
        self.stem = conv_bn(3, 8, 3, stride=2, padding=1)
        self.depthwise = conv_bn(8, 8, 3, padding=2, dilation=2, groups=8)
        self.slope = nn.PReLU(8)
        self.block, self.gate = RepVGG(8), SqueezeExcite(8)
        self.coarse = nn.Conv2d(8, classes, 1)
        self.fine = nn.Conv2d(8, classes, 1)
        self.up = nn.ConvTranspose2d(classes, classes, 2, stride=2)
        self.edge = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        half = self.slope(self.depthwise(F.relu(self.stem(x))))
        deep = self.gate(self.block(F.avg_pool2d(half, 2)))
        coarse = self.coarse(deep)
        confident = 1 - torch.softmax(coarse, 1).max(1)[0].unsqueeze(1).expand(-1, coarse.shape[1], -1, -1)
        coarse = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=True)
        fine = self.fine(half) * F.interpolate(confident, scale_factor=2, mode="bilinear", align_corners=False)
        return self.up(coarse + fine), self.edge(half)


class WithPrior(Small):
    """The same with a second input of one channel: named so that the order of the alphabet is the wrong one."""

    def forward(self, x, prior):
        scores, edge = super().forward(x)
        return scores + 0.5 * prior, edge


class Twin(Small):
    """The same tensor returned twice."""

    def forward(self, x):
        scores, _ = super().forward(x)
        return scores, scores
'''

RECIPE = """
format_version = 1
name = "small"
description = "a small network of this test"
license = "Apache-2.0"
source = "this test"

[network]
factory = "small_networks.nets:{factory}"
arguments = {{ classes = {classes} }}

[[inputs]]
name = "photo"
shape = [1, 3, 64, 64]
color_order = "bgr"
mean = [104.0, 117.0, 123.0]
scale = [0.017, 0.018, 0.019]
source = "this test"
{more_inputs}
[[outputs]]
name = "scores"
meaning = "one score per class"
classes = [{names}]

[[outputs]]
name = "edge"
meaning = "edges, for training only"
deploy = false

[checkpoint]
path = "small.pt"

[expected]
fold_batch_norm = 4
merge_branches = 1

[tolerances.fp32]
max_abs_error = 2e-4
relative_l2 = 1e-5
wrong_pixels = 0
reason = "runtimes sum in another order than PyTorch, in the same float32"

[tolerances.fp16]
relative_l2 = 1e-2
reason = "half precision keeps 11 bits per value and the errors of all layers add up"
"""

PRIOR = """
[[inputs]]
name = "a_prior"
kind = "tensor"
shape = [1, 1, 64, 64]
value_range = [-1.0, 1.0]
source = "this test"
"""


def randomize(network: nn.Module, seed: int = 0) -> None:
    """Give ``network`` weights of sensible size and random BatchNorm statistics, gamma of both signs."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            with torch.no_grad():
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.weight[::2] *= -1
                module.bias.normal_(0, 0.5, generator=generator)
        elif isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.3, 0.6, generator=generator)
        elif isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
            fan_in = module.weight[0].numel()
            module.weight.data.normal_(0, (2 / fan_in) ** 0.5, generator=generator)


def write_case(folder: Path, *, factory: str = "Small", classes: int = 2, seed: int = 0) -> Path:
    """Write the networks, a checkpoint with random statistics and the recipe into ``folder``; return the recipe."""
    package = folder / "small_networks"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", "utf-8")
    (package / "nets.py").write_text(NETWORK, "utf-8")
    recipe = folder / "small.toml"
    names = ", ".join(f'"class {index}"' for index in range(classes))
    inputs = PRIOR if factory == "WithPrior" else ""
    text = RECIPE.format(factory=factory, classes=classes, names=names, more_inputs=inputs)
    recipe.write_text(text.replace("deploy = false", "deploy = true") if factory == "Twin" else text, "utf-8")
    network = build_network(load_recipe(recipe))
    randomize(network, seed)
    torch.save(network.state_dict(), folder / "small.pt")
    return recipe
