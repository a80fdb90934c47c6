"""The network around a construct: a convolution, the construct, a 1x1 convolution to three scores; and its recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from deploykit.network import LoadedNetwork
from deploykit.recipe import recipe_from_table

CHANNELS = 8
SIZE = (21, 28)
CLASSES = 3

Operator: TypeAlias = Callable[[], nn.Module]


@dataclass(frozen=True)
class Construct:
    """One construct of vision networks: ``build`` makes a module from (1, 8, 21, 28) to any 4-D tensor.

    ``what`` says in a few words what the module computes, for a reader of the support matrix.
    """

    name: str
    what: str
    build: Operator


class Of(nn.Module):
    """A module that computes one function of its input and, where given, of the module ``part``."""

    def __init__(self, function: Callable[..., Tensor], part: nn.Module | None = None) -> None:
        super().__init__()
        self.function = function
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """Return the function of ``x``, or of ``x`` and the part."""
        return self.function(x) if self.part is None else self.function(x, self.part)


def of(function: Callable[..., Tensor], part: Callable[[], nn.Module] | None = None) -> Operator:
    """Return a builder of ``Of``."""
    return lambda: Of(function, None if part is None else part())


class ConstructNetwork(nn.Module):
    """A 3x3 convolution with BatchNorm (values of both signs), the construct, a 1x1 convolution to three scores."""

    def __init__(self, construct: Construct) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(CHANNELS))
        self.construct = construct.build()
        with torch.no_grad():
            channels = self.construct.eval()(torch.rand(1, CHANNELS, *SIZE)).shape[1]
        self.head = nn.Conv2d(channels, CLASSES, 1)

    def forward(self, photo: Tensor) -> Tensor:
        """Return three scores for ``photo`` (1, 3, 21, 28)."""
        scores: Tensor = self.head(self.construct(self.stem(photo)))
        return scores


def construct_network(construct: Construct) -> LoadedNetwork:
    """Return the evaluated network around ``construct`` with seeded weights and random statistics, and its recipe."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ConstructNetwork(construct).eval()
        _randomize(network)
    table = {
        "format_version": 1,
        "name": "construct",
        "description": construct.what,
        "license": "Apache-2.0",
        "source": "the support matrix",
        "network": {"factory": "deploykit.preflight:none"},
        "inputs": [
            {
                "name": "photo",
                "shape": [1, 3, *SIZE],
                "mean": [127.5],
                "scale": [0.0078125],
                "source": "the support matrix",
            }
        ],
        "outputs": [{"name": "scores", "meaning": "three scores"}],
        "tolerances": {
            "fp32": {"relative_l2": 1e-5, "reason": "a few layers in float32"},
            "fp16": {"relative_l2": 1e-2, "reason": "a few layers in half precision"},
        },
    }
    recipe = recipe_from_table(table, Path("construct.toml"))
    return LoadedNetwork(recipe, network, Path("construct.pt"), "0" * 64, ())


def _randomize(network: nn.Module) -> None:
    """Give ``network`` weights that keep the size of values, and normalisations far from the identity."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.3, 2.0)
            if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d)):
                module.weight.uniform_(0.5, 1.5)
                module.weight[::2] *= -1
                module.bias.normal_(0, 0.5)
            elif isinstance(module, nn.PReLU):
                module.weight.uniform_(-0.3, 0.6)
            elif isinstance(module, (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
