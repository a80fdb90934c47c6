"""Networks for the tests of the passes, written as plain PyTorch, and the few steps that every test takes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploykit.graph.capture import capture
from deploykit.graph.graph import Graph
from deploykit.graph.passes.drop_unused_outputs import drop_unused_outputs

BOUND = 1e-12


def randomized(network: nn.Module, seed: int = 0) -> nn.Module:
    """``network`` in evaluation mode with random weights and random BatchNorm statistics, gamma of both signs."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        with torch.no_grad():
            parameter.normal_(0, 0.5, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            if module.affine:
                with torch.no_grad():
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.weight[::2] *= -1
    return network.eval()


def captured(network: nn.Module, *shape: int, outputs: Sequence[str] = ("out",), seed: int = 0) -> Graph:
    return capture(randomized(network, seed), [torch.zeros(*shape)], (), outputs)


def captured_together(networks: Mapping[str, nn.Module], *shape: int) -> dict[str, Graph]:
    """Name → graph of each of ``networks``, all captured at once: one capture costs more than the rest of a test.

    The paths of a network's modules begin with ``case`` and its number.
    """
    names = tuple(networks)
    together = Calls(
        lambda m, x: tuple(getattr(m, f"case{i}")(x) for i in range(len(names))),
        **{f"case{i}": copy.deepcopy(networks[name]) for i, name in enumerate(names)},
    )
    graph = captured(together, *shape, outputs=names)
    return {name: replace(drop_unused_outputs(graph, [name]), reports=()) for name in names}


def relative_l2(before: Graph, after: Graph, *shape: int) -> float:
    """The worst error over the outputs, for float64 noise of ``shape``."""
    x = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    names = dict(zip(before.outputs, before.run(x), strict=True))
    results = zip(after.outputs, after.run(x), strict=True)
    return max(float((value - names[name]).norm() / names[name].norm()) for name, value in results)


def operations(graph: Graph) -> Counter[str]:
    """How often each ATen operation occurs, without its overload."""
    calls = (node for node in graph.module.graph.nodes if node.op == "call_function")
    return Counter(str(node.target).removeprefix("aten.").split(".")[0] for node in calls)


NEUTRAL = {"running_mean": 0.0, "running_var": 1.0, "weight": 1.0, "bias": 0.0}


def without(graph: Graph, path: str, statistic: str) -> Graph:
    """A copy of ``graph`` whose BatchNorm at ``path`` lacks one statistic: mean 0, var 1, gamma 1 or beta 0."""
    damaged = graph.copy()
    getattr(damaged.module.get_submodule(path), statistic).data.fill_(NEUTRAL[statistic])
    return damaged


def skip_reasons(graph: Graph, name: str) -> list[str]:
    return [skip.reason for skip in graph.report(name).skipped]


class Calls(nn.Module):
    """The children given by keyword, and a forward given as a function of them and the input."""

    def __init__(self, forward: Callable[[Calls, Tensor], object], **children: nn.Module | nn.Parameter) -> None:
        super().__init__()
        self.function = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def conv_bn(channels_in: int, channels_out: int, kernel: object, **options: object) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, bias=False, **options), nn.BatchNorm2d(channels_out)
    )


class RepVGG(nn.Module):
    def __init__(self, channels: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.dense = conv_bn(channels, channels, 3, stride=stride, padding=1, groups=groups)
        self.point = conv_bn(channels, channels, 1, stride=stride, groups=groups)
        self.identity = nn.BatchNorm2d(channels) if stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        identity = 0 if self.identity is None else self.identity(x)
        return F.relu(self.dense(x) + self.point(x) + identity)


class MobileOne(nn.Module):
    def __init__(self, channels: int, copies: int = 3, depthwise: bool = True) -> None:
        super().__init__()
        groups = channels if depthwise else 1
        self.skip = nn.BatchNorm2d(channels)
        self.scale = conv_bn(channels, channels, 1, groups=groups)
        self.copies = nn.ModuleList(conv_bn(channels, channels, 3, padding=1, groups=groups) for _ in range(copies))

    def forward(self, x: Tensor) -> Tensor:
        out = 0
        for branch in self.copies:
            out += branch(x)
        return F.relu(out + self.scale(x) + self.skip(x))


class ACNet(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.square = conv_bn(channels, channels, 3, padding=1)
        self.horizontal = conv_bn(channels, channels, (1, 3), padding=(0, 1))
        self.vertical = conv_bn(channels, channels, (3, 1), padding=(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.horizontal(x) + self.vertical(x)


class RCRBranches(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv3 = conv_bn(channels, channels, 3, padding=1, groups=channels)
        self.conv1 = conv_bn(channels, channels, 1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(x) + self.conv1(x) + x


class BatchNormThenPad(nn.Module):
    """BatchNorm whose border holds its own response to zero, or that response times ``wrong``."""

    def __init__(self, channels: int, width: int, wrong: float = 1.0) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.width, self.wrong = width, wrong

    def forward(self, x: Tensor) -> Tensor:
        p, bn = self.width, self.bn
        out = F.pad(bn(x), [p, p, p, p])
        value = bn.bias.detach() - bn.running_mean * bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
        value = self.wrong * value.view(1, -1, 1, 1)
        out[:, :, 0:p, :] = value
        out[:, :, -p:, :] = value
        out[:, :, :, 0:p] = value
        out[:, :, :, -p:] = value
        return out


class DiverseBranches(nn.Module):
    """Diverse Branch Block: 3x3, 1x1, 1x1 then 3x3, and 1x1 then average pooling, each with BatchNorm."""

    def __init__(self, channels: int, wrong: float = 1.0) -> None:
        super().__init__()
        self.square = conv_bn(channels, channels, 3, padding=1)
        self.point = conv_bn(channels, channels, 1)
        self.expand = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            BatchNormThenPad(channels, 1, wrong),
            nn.Conv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.pool = nn.Sequential(
            nn.Conv2d(channels, channels, 1, bias=False),
            BatchNormThenPad(channels, 1),
            nn.AvgPool2d(3, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.point(x) + self.expand(x) + self.pool(x)
