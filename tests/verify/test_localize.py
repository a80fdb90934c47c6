"""The guilty module is named: a wrong fold, and a value that is not finite."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.graph import algebra
from deploykit.graph.capture import capture
from deploykit.graph.simplify import simplify
from deploykit.verify.localize import first_difference, first_not_finite
from deploykit.vocab import TensorSpec


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            for channels in (3, 4, 4, 4)
        )

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


@pytest.fixture
def network():
    torch.manual_seed(3)
    net = Net().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return net


def captured(net):
    x = torch.zeros(1, 3, 16, 16)
    return capture(net, (x,), (TensorSpec("x", (1, 3, 16, 16), "float32"),), ("y",))


def test_a_right_graph_accuses_nobody(network):
    training = captured(network)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert first_difference(training, simplify(training, keep_outputs=None), (x,), 1e-12) is None
    assert first_not_finite(training, (x,)) is None


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_wrong_fold_is_named(network, monkeypatch, place):
    training = captured(network)
    right = algebra.fold_conv_batch_norm
    calls = []

    def wrong(weight, bias, stats):
        calls.append(1)
        w, b = right(weight, bias, stats)
        return (w * 1.001, b) if len(calls) == place + 1 else (w, b)

    monkeypatch.setattr(algebra, "fold_conv_batch_norm", wrong)
    deploy = simplify(training, keep_outputs=None)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert first_difference(training, deploy, (x,), 1e-12) == f"blocks.{place}.0"


def test_the_module_that_makes_nan_is_named(network):
    with torch.no_grad():
        network.blocks[2][1].running_var.fill_(-5.0)
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert first_not_finite(captured(network), (x,)) == "blocks.2.1"
