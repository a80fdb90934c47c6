"""Networks with every kind of block, random statistics, as loaded networks without files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.certificate.make import Subject, certify_block, examine
from deploykit.certificate.records import Block
from deploykit.graph.graph import Graph
from deploykit.network import LoadedNetwork
from deploykit.recipe import recipe_from_table
from deploykit.verify.reparam import deploy_graph, training_graph
from deploykit.verify.samples import draw_samples


def conv_bn(c: int, k: int, kernel: int | tuple[int, int], **options: object) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, k, kernel, bias=False, **options), nn.BatchNorm2d(k))


class Branches(nn.Module):
    """The sum of its children and, if asked, of the input; ``beside`` is a nonlinear term that stays."""

    def __init__(self, *children: nn.Module, identity: bool = False, beside: bool = False) -> None:
        super().__init__()
        self.branches = nn.ModuleList(children)
        self.identity, self.beside = identity, beside

    def forward(self, x: Tensor) -> Tensor:
        total = self.branches[0](x)
        for branch in self.branches[1:]:
            total = total - 2 * branch(x)
        total = total + x if self.identity else total
        return total + torch.tanh(x) if self.beside else total


class TwoSources(nn.Module):
    """A sum of two merged pairs, each from its own tensor: neither pair has a value of its own."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.one, self.two = conv_bn(c, c, 3, padding=1), conv_bn(c, c, 1)
        self.three, self.four = conv_bn(c, c, 3, padding=1, groups=c), conv_bn(c, c, 1, groups=c)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(x)
        return self.one(x) + self.three(y) + self.two(x) + self.four(y)


class BorderedBatchNorm(nn.Module):
    """BatchNorm, then a border of its own response to zero, as Diverse Branch Block pads."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(c)

    def forward(self, x: Tensor) -> Tensor:
        bn = self.bn
        out = F.pad(bn(x), [1, 1, 1, 1])
        value = bn.bias.detach() - bn.running_mean * bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        value = value.view(1, -1, 1, 1)
        out[:, :, 0:1, :] = value
        out[:, :, -1:, :] = value
        out[:, :, :, 0:1] = value
        out[:, :, :, -1:] = value
        return out


class Twice(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.layer = conv_bn(c, c, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(torch.tanh(self.layer(x)))


class OnVectors(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.wide, self.line = nn.Linear(c, 5), nn.Conv1d(c, 4, 3, padding=1, groups=2)
        self.norm, self.line_norm = nn.BatchNorm1d(5), nn.BatchNorm1d(4)

    def forward(self, x: Tensor) -> Tensor:
        vector = self.norm(self.wide(x.mean((2, 3))))
        return vector.sum(1) + self.line_norm(self.line(x.flatten(2))).sum((1, 2))


NETWORKS: dict[str, nn.Module] = {
    "fold": conv_bn(4, 6, 3, stride=2, dilation=2, padding=2),
    "biased": nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.BatchNorm2d(6, affine=False)),
    "same": conv_bn(4, 4, 4, padding="same"),
    "transposed": nn.Sequential(
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), nn.BatchNorm2d(6)
    ),
    "vectors": OnVectors(4),
    "repvgg": Branches(conv_bn(4, 4, 3, padding=1), conv_bn(4, 4, 1), nn.BatchNorm2d(4), identity=True),
    "strided": Branches(conv_bn(4, 6, 3, padding=1, stride=2), conv_bn(4, 6, 1, stride=2)),
    "asymmetric": Branches(
        conv_bn(4, 4, 3, padding=1), conv_bn(4, 4, (1, 3), padding=(0, 1)), conv_bn(4, 4, (3, 1), padding=(1, 0))
    ),
    "grouped": Branches(conv_bn(4, 4, 3, padding=1, groups=2), conv_bn(4, 4, 3, padding=1, groups=4)),
    "partial": Branches(conv_bn(4, 4, 3, padding=1, groups=4), conv_bn(4, 4, 1, groups=4), beside=True),
    "sources": TwoSources(4),
    "diverse": Branches(
        conv_bn(4, 4, 3, padding=1),
        nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), BorderedBatchNorm(4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)),
        nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), BorderedBatchNorm(4), nn.AvgPool2d(3, 1), nn.BatchNorm2d(4)),
    ),
    "twice": Twice(4),
}


class Together(nn.Module):
    """Every network on one input: one capture costs more than the rest of a test."""

    def __init__(self, networks: dict[str, nn.Module]) -> None:
        super().__init__()
        self.cases = nn.ModuleDict(networks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(network(x) for network in self.cases.values())


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.normal_(0, 0.5, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            if module.affine:
                with torch.no_grad():
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.weight[::2] *= -1
    return network.eval()


def loaded(networks: dict[str, nn.Module], size: int = 20) -> LoadedNetwork:
    """Return the networks as one, as if a recipe had named them and a checkpoint had their weights."""
    table = {
        "format_version": 1,
        "name": "cases",
        "description": "networks of this test",
        "license": "MIT",
        "source": "this test",
        "network": {"factory": "sinet"},
        "inputs": [
            {
                "name": "x",
                "kind": "tensor",
                "shape": [1, 4, size, size],
                "value_range": [-2.0, 1.0],
                "source": "this test",
            }
        ],
        "outputs": [{"name": name, "meaning": "a result"} for name in networks],
    }
    recipe = recipe_from_table(table, Path("cases.toml"))
    return LoadedNetwork(recipe, randomized(Together(networks)), Path("cases.pt"), "c" * 64, ())


@dataclass(frozen=True)
class Case:
    network: LoadedNetwork
    training: Graph
    deploy: Graph
    subject: Subject
    blocks: dict[str, Block]


def certified(networks: dict[str, nn.Module], size: int = 20) -> Case:
    network = loaded(networks, size)
    training = training_graph(network)
    deploy = deploy_graph(training, network.recipe)
    subject = examine(network, draw_samples(network.recipe), training=training, deploy=deploy)
    blocks = {one.name: certify_block(subject, one, subject.boxes[one.name]) for one in subject.blocks}
    return Case(network, training, deploy, subject, blocks)
