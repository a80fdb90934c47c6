"""Random small networks made of the constructs that optimization knows, each value from earlier ones."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LARGEST = 16
_ACTIVATIONS = ("relu", "hardswish", "sigmoid", "leaky", "prelu", "prelu of one", "negative")
_POOLINGS = ("average", "average of padding", "average without padding", "average rounded up", "max", "max padded")


@dataclass(frozen=True)
class Step:
    """One operation: ``kind``, which values it reads (0 is the input), and its numbers."""

    kind: str
    reads: tuple[int, ...]
    numbers: tuple[int, ...] = ()
    option: str = ""


@dataclass(frozen=True)
class Plan:
    """A network: the shape of its input, its steps, which values it returns, and what it does with the last one."""

    shape: tuple[int, int, int, int]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    tail: str

    @property
    def outputs(self) -> int:
        return len(self.results)


def plan(source: random.Random) -> Plan:
    """A plan drawn from ``source``."""
    shape = (source.choice((1, 1, 1, 2)), source.choice((4, 8)), 8, 6)
    sizes = [shape[1:]]
    steps: list[Step] = []
    for _ in range(source.randint(6, 24)):
        drawn = _draw(source, sizes)
        if drawn is not None:
            steps.append(drawn[0])
            sizes.append(drawn[1])
    last = len(sizes) - 1
    results = (last, source.randint(0, last)) if source.random() < 0.2 else (last,)
    return Plan(shape, tuple(steps), results, source.choice(("", "", "", "softmax", "max", "expand")))


def _draw(source: random.Random, sizes: list[tuple[int, int, int]]) -> tuple[Step, tuple[int, int, int]] | None:
    kinds = (*("conv",) * 4, *("norm",) * 3, *("shuffle",) * 2, *("activation",) * 2, "pool", "resize", "resize")
    kind = source.choice((*kinds, "deconv", "cat", "cat", "swap", "sum", "sum", "gate", "scale", "global", "pad"))
    place = len(sizes) - 1 if source.random() < 0.85 else source.randrange(len(sizes))
    channels, height, width = sizes[place]
    size: tuple[int, int, int] = sizes[place]
    numbers: tuple[int, ...] = ()
    reads, option = (place,), ""
    if kind == "conv":
        groups = source.choice([g for g in (1, 1, 2, 4, channels, channels) if channels % g == 0])
        out = channels if groups == channels and source.random() < 0.8 else source.choice((1, 2, 4, 6)) * groups
        side = source.choice((1, 1, 3))
        padding, stride = source.choice((0, side // 2, side // 2)), source.choice((1, 1, 1, 2))
        if out > _LARGEST or min(height, width) + 2 * padding < side:
            return None
        size = (out, *((n + 2 * padding - side) // stride + 1 for n in (height, width)))
        numbers, option = (channels, out, side, stride, padding, groups), source.choice(("bias", "", "dead"))
    elif kind == "deconv":
        groups = source.choice([g for g in (1, 2, channels) if channels % g == 0])
        if height * width > 100:
            return None
        size, numbers = (channels, 2 * height, 2 * width), (channels, groups)
    elif kind in ("norm", "shuffle", "activation", "scale", "swap", "gate"):
        groups = source.choice([g for g in (2, 4, channels) if channels % g == 0] or [1])
        numbers = (channels, groups)
        option = source.choice(_ACTIVATIONS) if kind == "activation" else source.choice(("", "", "dead"))
        if kind == "scale":
            option = source.choice(("mul (C,1,1)", "add (1,C,1,1)", "sub number", "rsub number", "div", "mul (H,W)"))
            numbers = size
        elif kind == "gate":
            option = source.choice(("pointwise", "linear", "linear, prelu", "linear of mean"))
    elif kind == "pool":
        option = source.choice(_POOLINGS)
        if min(height, width) < 3 or (option == "average rounded up" and min(height, width) < 4):
            return None
        probe = _pooled(torch.zeros(1, *size), option)
        size = (channels, probe.shape[2], probe.shape[3])
    elif kind == "resize":
        option = source.choice(("nearest", "bilinear", "bilinear aligned"))
        sides = (2 * height, 2 * width) if height * width < 100 and source.random() < 0.8 else (4, 3)
        size, numbers = (channels, *sides), sides
    elif kind == "global":
        option = source.choice(("adaptive", "mean", "adaptive max"))
        size = (channels, 1, 1)
    elif kind == "pad":
        option = source.choice(("zeros", "ones"))
        size = (channels, height + 2, width + 2)
    elif kind == "cat":
        fitting = [i for i, other in enumerate(sizes) if other[1:] == size[1:]]
        reads = tuple(source.choice([place, *fitting]) for _ in range(2))
        size = (sum(sizes[i][0] for i in reads), height, width)
        if size[0] > _LARGEST:
            return None
    elif kind == "sum":
        reads = (place, source.choice([i for i, other in enumerate(sizes) if other == size or other == (1, 1, 1)]))
        if source.random() < 0.5:
            reads = reads[::-1]
        option = source.choice(("add", "add", "mul", "sub", "max"))
    return Step(kind, reads, numbers, option), size


def _pooled(x: Tensor, option: str) -> Tensor:
    if option == "average":
        return F.avg_pool2d(x, 2)
    if option == "average of padding":
        return F.avg_pool2d(x, 3, 1, 1)
    if option == "average without padding":
        return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    if option == "average rounded up":
        return F.avg_pool2d(x, 3, 2, ceil_mode=True)
    return F.max_pool2d(x, 2) if option == "max" else F.max_pool2d(x, 3, 1, 1)


class Network(nn.Module):
    """The network of a plan. Every third channel of what is ``dead`` is a constant."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        for number, step in enumerate(plan.steps):
            for name, layer in _layers(step).items():
                setattr(self, f"{name}{number}", layer)

    def kill(self) -> Network:
        """Set the scales and weights of the dead channels to 0; after the statistics have been drawn."""
        with torch.no_grad():
            for number, step in enumerate(self.plan.steps):
                if step.option == "dead" and step.kind in ("norm", "conv"):
                    getattr(self, f"{step.kind}{number}").weight[::3] = 0
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        values = [x]
        for number, step in enumerate(self.plan.steps):
            values.append(self._run(number, step, [values[i] for i in step.reads]))
        found = [values[i] for i in self.plan.results]
        if self.plan.tail == "softmax":
            found[0] = torch.softmax(found[0], 1)
        elif self.plan.tail == "max":
            found[0] = found[0].max(1)[0]
        elif self.plan.tail == "expand":
            found[0] = found[0] * (1 - found[0].max(1)[0]).unsqueeze(1).expand(-1, found[0].shape[1], -1, -1)
        return tuple(found)

    def _run(self, number: int, step: Step, given: list[Tensor]) -> Tensor:
        x, kind, option = given[0], step.kind, step.option
        if kind in ("conv", "deconv", "norm"):
            return getattr(self, f"{kind}{number}")(x)
        if kind == "activation":
            return self._activated(number, x, option)
        if kind == "shuffle":
            n, c, h, w = x.shape
            return x.view(n, step.numbers[1], c // step.numbers[1], h, w).transpose(1, 2).reshape(n, c, h, w)
        if kind == "swap":
            parts = x.chunk(2, 1)
            return torch.cat(parts[::-1], 1)
        if kind == "pool":
            return _pooled(x, option)
        if kind == "resize":
            sides = list(step.numbers)
            if option == "nearest":
                return F.interpolate(x, sides, mode="nearest")
            return F.interpolate(x, sides, mode="bilinear", align_corners=option == "bilinear aligned")
        if kind == "global":
            if option == "mean":
                return x.mean((2, 3), keepdim=True)
            return F.adaptive_avg_pool2d(x, 1) if option == "adaptive" else F.adaptive_max_pool2d(x, 1)
        if kind == "pad":
            return F.pad(x, [1, 1, 1, 1], value=float(option == "ones"))
        if kind == "cat":
            return torch.cat(given, 1)
        if kind == "gate" and option != "pointwise":
            pooled = x.mean((2, 3)) if option == "linear of mean" else F.adaptive_avg_pool2d(x, 1).flatten(1)
            narrow = getattr(self, f"narrow{number}")(pooled)
            narrow = getattr(self, f"slope{number}")(narrow) if option == "linear, prelu" else torch.relu(narrow)
            return x * (1 - torch.sigmoid(getattr(self, f"wide{number}")(narrow)))[:, :, None, None]
        if kind == "gate":
            narrow = torch.relu(getattr(self, f"narrow{number}")(F.adaptive_avg_pool2d(x, 1)))
            return x * torch.sigmoid(getattr(self, f"wide{number}")(narrow))
        if kind == "sum":
            operation = {"add": torch.add, "mul": torch.mul, "sub": torch.sub, "max": torch.maximum}[option]
            return operation(*given)
        return self._scaled(number, x, option)

    def _activated(self, number: int, x: Tensor, option: str) -> Tensor:
        if option.startswith("prelu"):
            return getattr(self, f"slope{number}")(x)
        functions = {"relu": F.relu, "hardswish": F.hardswish, "sigmoid": torch.sigmoid, "leaky": F.leaky_relu}
        return functions[option](x) if option in functions else -x

    def _scaled(self, number: int, x: Tensor, option: str) -> Tensor:
        constant = getattr(self, f"factor{number}")
        if option.startswith("mul"):
            return constant * x
        if option.startswith("add"):
            return x + constant
        if option == "div":
            return x / constant
        return x - 0.7 if option == "sub number" else 1.3 - x


def _layers(step: Step) -> dict[str, nn.Module | nn.Parameter]:
    numbers = step.numbers
    if step.kind == "conv":
        channels, out, side, stride, padding, groups = numbers
        bias = step.option == "bias"
        return {"conv": nn.Conv2d(channels, out, side, stride, padding, groups=groups, bias=bias)}
    if step.kind == "deconv":
        return {"deconv": nn.ConvTranspose2d(numbers[0], numbers[0], 2, 2, groups=numbers[1])}
    if step.kind == "norm":
        return {"norm": nn.BatchNorm2d(numbers[0])}
    if step.kind == "activation" and step.option.startswith("prelu"):
        return {"slope": nn.PReLU(1 if step.option == "prelu of one" else numbers[0])}
    if step.kind == "gate" and step.option != "pointwise":
        return {"narrow": nn.Linear(numbers[0], 2), "slope": nn.PReLU(2), "wide": nn.Linear(2, numbers[0])}
    if step.kind == "gate":
        return {"narrow": nn.Conv2d(numbers[0], 2, 1), "wide": nn.Conv2d(2, numbers[0], 1)}
    if step.kind == "scale":
        shapes = {"add (1,C,1,1)": (1, numbers[0], 1, 1), "mul (H,W)": numbers[1:]}
        return {"factor": nn.Parameter(torch.empty(shapes.get(step.option, (numbers[0], 1, 1))))}
    return {}
