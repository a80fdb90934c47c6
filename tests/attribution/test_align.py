"""Matching on traces written by hand: what a file shows of a layer, leaves out of it, and what only looks like one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from deploykit.attribution.align import align
from deploykit.attribution.file import File
from deploykit.attribution.lowered import Lowered
from deploykit.attribution.walk import Walk
from deploykit.graph.capture import capture
from deploykit.targets.traced import Trace, TracedValue
from deploykit.vocab import Precision, TensorSpec


class Chain(nn.Module):
    """A scale and a small shift, an activation, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(4), nn.Conv2d(4, 3, 3)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.norm.running_var.uniform_(0.5, 2, generator=generator)
            self.norm.bias.uniform_(0.01, 0.03, generator=generator)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(torch.relu(self.norm(x)))
        return out


class Averaged(nn.Module):
    """A convolution of which the output sees the mean alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.conv(x).mean((2, 3)))


X = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(1))


def _lowered(network: nn.Module, x: Tensor = X) -> Lowered:
    graph = capture(network.eval(), (x,), (TensorSpec("x", tuple(x.shape), "float32"),), ("y",))
    return Lowered(graph, Precision.FP32)


def _file(*values: tuple[str, str, Tensor]) -> File:
    """Return a file whose values are (name, what it reads, value), in order; the last one is the output."""
    traced = [
        TracedValue(name, "op", place, (reads,), value.detach().numpy(), output="y" if name == values[-1][0] else None)
        for place, (name, reads, value) in enumerate(values)
    ]
    return File(Trace(tuple(traced), "this test"), {"x": "x"})


def _matched(lowered: Lowered, file: File, x: Tensor = X) -> tuple[dict[str, str], set[str]]:
    """Return operation → value of the file, and the operations that are accused."""
    given = {"x": x.double()}
    alignment = align(lowered, file, given)
    operations = {node.name: node.operation for node in lowered.nodes}
    judged = Walk(lowered, file, given, alignment.fits).judgements()
    accused = {node.operation for node, one in judged if not one.clean}
    return {operations[name]: fit.value for name, fit in alignment.fits.items()}, accused


def test_a_product_without_its_sum_is_not_the_layer() -> None:
    network = Chain().eval()
    lowered, norm = _lowered(network), network.norm
    scale = (norm.weight / torch.sqrt(norm.running_var + norm.eps))[:, None, None]
    active = torch.relu(norm(X))
    near = float(torch.linalg.vector_norm(X * scale - norm(X)) / torch.linalg.vector_norm(norm(X)))
    assert 0.001 < near < 0.05
    file = _file(("product", "x", X * scale), ("active", "product", active), ("y", "active", network.conv(active)))
    assert _matched(lowered, file) == ({"relu": "active", "conv2d": "y"}, set())


def test_a_fault_that_nothing_after_it_shows_is_found_by_its_place() -> None:
    network = Averaged().eval()
    value = network.conv(X)
    noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(2)) * 1e-4
    wrong = value + noise - noise.mean((2, 3), keepdim=True)
    mean = value.mean((2, 3))
    file = _file(("conv", "x", wrong), ("mean", "conv", mean), ("y", "mean", torch.sigmoid(mean)))
    matched, accused = _matched(_lowered(network), file)
    assert matched == {"conv2d": "conv", "mean": "mean", "sigmoid": "y"}
    assert accused == {"conv2d"}


class Clamped(nn.Module):
    """A convolution whose outputs, moved by 10, are cut off on both sides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last = nn.Conv2d(4, 3, 3), nn.Conv2d(3, 2, 1)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last((self.conv(x) + 10).clamp(9.6, 10.5))
        return out


def test_half_of_a_clamp_is_not_the_sum_before_it() -> None:
    network = Clamped().eval()
    total = network.conv(X) + 10
    raised, clamped = total.clamp(min=9.6), total.clamp(9.6, 10.5)
    y = network.last(clamped)
    assert 0.001 < float(torch.linalg.vector_norm(raised - total) / torch.linalg.vector_norm(total)) < 0.05
    file = _file(("total", "x", raised), ("clamped", "total", clamped), ("y", "clamped", y))
    assert _matched(_lowered(network), file) == ({"clamp": "clamped", "conv2d": "y"}, set())
    # The twin: a sum that is wrong between the bounds as well is accused.
    wrong = total + 1e-3 * torch.randn(total.shape, generator=torch.Generator().manual_seed(2))
    after = wrong.clamp(9.6, 10.5)
    file = _file(("total", "x", wrong), ("clamped", "total", after), ("y", "clamped", network.last(after)))
    matched, accused = _matched(_lowered(network), file)
    assert matched["add"] == "total"
    assert accused == {"add"}


def test_a_flat_map_may_be_added_up_one_value_after_the_other() -> None:
    class Pooled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(x.mean((2, 3), keepdim=True))

    flat = torch.rand(1, 8, 1, 1, generator=torch.Generator().manual_seed(0)).expand(1, 8, 128, 128).contiguous()
    added = torch.from_numpy(np.cumsum(flat.numpy().reshape(1, 8, -1), axis=2, dtype=np.float32)[:, :, -1:])
    mean = added[..., None] / 128**2
    lowered = _lowered(Pooled(), flat)
    assert float(torch.linalg.vector_norm(mean - flat[:, :, :1, :1]) / torch.linalg.vector_norm(mean)) > 1e-5
    for factor, expected in ((1, set()), (1.01, {"mean"})):
        value = mean * factor
        file = _file(("mean", "x", value), ("y", "mean", torch.sigmoid(value)))
        matched, accused = _matched(lowered, file, flat)
        assert matched == {"mean": "mean", "sigmoid": "y"}
        assert accused == expected


def test_a_layer_that_the_file_fuses_is_accused_with_the_next() -> None:
    network = Chain().eval()
    active = 1.1 * torch.relu(network.norm(X))
    file = _file(("active", "x", active), ("y", "active", network.conv(active)))
    matched, accused = _matched(_lowered(network), file)
    assert matched == {"relu": "active", "conv2d": "y"}
    assert accused == {"relu"}


def test_equal_values_of_two_branches_are_told_apart_by_their_place() -> None:
    class Twice(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.sigmoid(torch.relu(x)) + torch.tanh(torch.relu(x))

    active = torch.relu(X)
    gate, tanh = torch.sigmoid(active), torch.tanh(active)
    values = (("a", ("x",), active), ("b", ("x",), active), ("gate", ("b",), gate), ("tanh", ("a",), tanh))
    traced = [TracedValue(name, "op", i, reads, value.numpy()) for i, (name, reads, value) in enumerate(values)]
    traced.append(TracedValue("y", "op", 4, ("gate", "tanh"), (gate + tanh).numpy(), output="y"))
    matched, accused = _matched(_lowered(Twice()), File(Trace(tuple(traced), "this test"), {"x": "x"}))
    assert not accused
    assert (matched["sigmoid"], matched["tanh"], matched["add"]) == ("gate", "tanh", "y")
