"""SINet against its facts: parameters, cost, and the logits of the authors' own network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.checkpoint import read_checkpoint
from deploykit.models.sinet import SINet, channel_shuffle

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def real(shared_cases):
    network = SINet()
    tensors = read_checkpoint(shared_cases / "sinet_clovaai" / "SINet.pth").tensors
    network.load_state_dict(dict(tensors), strict=True)
    return network.eval()


@pytest.fixture(scope="module")
def golden(shared_cases):
    with np.load(shared_cases / "golden_sinet" / "clovaai_astronaut_224.npz") as archive:
        return {name: torch.from_numpy(archive[name].astype(np.float32)) for name in archive.files}


def logits(network, x):
    with torch.no_grad():
        return network(x)


def test_parameters_and_state():
    network = SINet()
    assert sum(p.numel() for p in network.parameters()) == 86_910
    assert sum(p.numel() for p in network.encoder.parameters()) == 86_764
    assert len(network.state_dict()) == 393


def test_every_batch_norm_has_the_epsilon_of_the_checkpoint():
    assert {m.eps for m in SINet().modules() if isinstance(m, nn.BatchNorm2d)} == {1e-3}
    assert all(m.bias is None for m in SINet().modules() if isinstance(m, nn.Conv2d))


@pytest.mark.parametrize(("part", "expected"), [("", 63_866_208), ("encoder", 61_758_816)])
def test_convolution_cost_at_224(part, expected):
    network = SINet().eval()
    counted = []

    def count(module, _, output):
        counted.append(module.weight[0].numel() * output[0].numel())

    for module in network.get_submodule(part).modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    logits(network, torch.zeros(1, 3, 224, 224))
    assert sum(counted) == expected


def test_logits_are_those_of_the_authors_network(real, golden):
    error = (logits(real, golden["x"]) - golden["logits"]).abs().max()
    assert error <= TOLERANCE


def test_intermediate_scores_are_those_of_the_authors_network(real, golden):
    with torch.no_grad():
        scores, _ = real.encoder(golden["x"])
    assert (scores - golden["enc_final"]).abs().max() <= TOLERANCE


def drop_a_mean(network):
    network.encoder.level3[4].d1.bn.running_mean.zero_()


def drop_a_variance(network):
    norm = network.encoder.level1.bn
    norm.running_var.fill_(1 - norm.eps)


def change_epsilon(network):
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def sigmoid_gate(network):
    network.encoder.level2_0.conv[1].dense[1] = nn.Sigmoid()


def corners_not_aligned(network):
    network.up.align_corners = False


def no_residual(network):
    network.encoder.level3[3].residual = False


@pytest.mark.parametrize(
    "mistake", [drop_a_mean, drop_a_variance, change_epsilon, sigmoid_gate, corners_not_aligned, no_residual]
)
def test_each_misreading_of_the_paper_is_beyond_the_tolerance(shared_cases, golden, mistake):
    network = SINet()
    network.load_state_dict(dict(read_checkpoint(shared_cases / "sinet_clovaai" / "SINet.pth").tensors))
    mistake(network.eval())
    assert (logits(network, golden["x"]) - golden["logits"]).abs().max() > 10 * TOLERANCE


def test_sizes_that_are_multiples_of_32_and_more_classes():
    for height, width in ((32, 64), (96, 32)):
        assert logits(SINet(classes=3).eval(), torch.zeros(1, 3, height, width)).shape == (1, 3, height, width)
    assert SINet.size_multiple == 32


def test_channel_shuffle_deals_the_channels_out():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]
