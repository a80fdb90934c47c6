"""ELB against the figures of its paper and the choices that its docstring states."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.models.elb import BFB, DSB, ELB, FactorizedPair

PRINTED_MACS = 3.8e9


def conv_macs(network: nn.Module, size: int) -> int:
    """Multiply-accumulates of every convolution at ``size`` x ``size``."""
    counts: list[int] = []

    def count(module: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        counts.append(module.weight[0].numel() * output[0].numel())

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Every layer is at a whole fraction of the size, so that the cost at 512 is 64 times that at 64.
@pytest.mark.parametrize(("reduction", "count", "macs"), [(2, 657_727, 3_777_953_792), (4, 238_943, 1_378_811_904)])
def test_parameters_and_cost_are_those_that_the_docstring_states(reduction, count, macs):
    network = ELB(reduction=reduction).eval()
    assert parameters(network) == count
    assert conv_macs(network, 64) * 64 == macs
    biases = sum(m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is None for m in network.modules() if isinstance(m, nn.Conv2d))
    assert reduction == 4 or parameters(network) + biases == 662_558


def test_cost_is_the_printed_one_and_one_pair_in_each_block_would_not_be():
    network = ELB().eval()
    assert conv_macs(network, 64) * 64 == pytest.approx(PRINTED_MACS, rel=0.01)
    for module in network.modules():
        if isinstance(module, BFB):
            module.pair2 = nn.Identity()
    assert conv_macs(network, 64) * 64 == pytest.approx(2.469e9, rel=1e-3)
    assert conv_macs(network, 64) * 64 < 0.7 * PRINTED_MACS


def test_only_the_second_pairs_of_the_last_eight_blocks_are_dilated():
    network = ELB()
    blocks = [*network.level2, *network.level3]
    assert [block.pair1.row.dilation for block in blocks] == [(1, 1)] * 13
    dilations = [1] * 5 + [2, 4, 8, 16] * 2
    assert [block.pair2.row.dilation for block in blocks] == [(1, dilation) for dilation in dilations]
    assert [block.pair2.column.dilation for block in blocks] == [(dilation, 1) for dilation in dilations]


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_pair_is_one_by_three_then_three_by_one_with_relu_between(dilation):
    torch.manual_seed(0)
    pair = FactorizedPair(4, dilation).double().eval()
    pair.bn.running_mean.normal_()
    pair.bn.running_var.uniform_(0.3, 2)
    x = torch.randn(1, 4, 9, 11).double()

    def shifted(y: torch.Tensor, kernel: torch.Tensor, axis: int) -> torch.Tensor:
        """Three taps along one axis, as sums of shifted maps."""
        total = torch.zeros_like(y)
        size = y.shape[axis]
        for tap in range(3):
            offset = (tap - 1) * dilation
            lo, hi = max(0, -offset), min(size, size - offset)
            part = y.narrow(axis, lo + offset, hi - lo)
            total.narrow(axis, lo, hi - lo).add_(torch.einsum("oi,nihw->nohw", kernel[:, :, tap], part))
        return total

    with torch.no_grad():
        row = shifted(x, pair.row.weight[:, :, 0], 3)
        column = shifted(row.relu(), pair.column.weight[..., 0], 2)
        linear = shifted(row, pair.column.weight[..., 0], 2)
        assert torch.allclose(pair(x), pair.bn(column).relu(), rtol=0, atol=1e-12)
        assert not torch.allclose(pair(x), pair.bn(linear).relu(), rtol=0, atol=1e-2)


def test_a_downsampler_ends_with_its_pooled_input():
    torch.manual_seed(0)
    block = DSB(3, 8).eval()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        out = block(x)
    assert out.shape == (1, 8, 4, 4)
    pooled = x.reshape(1, 3, 4, 2, 4, 2).amax((3, 5)).relu() / (1 + block.bn.eps) ** 0.5
    assert torch.allclose(out[:, 5:], pooled, atol=1e-6)


def test_a_block_without_its_branch_is_the_activated_input():
    block = BFB(8, 4).eval()
    block.expand[1].weight.data.zero_()
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        assert torch.equal(block(x), x.relu())
    assert block.reduce[0].out_channels == 2


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 40)])
def test_logits_are_at_the_size_of_the_input(height, width):
    with torch.no_grad():
        logits = ELB(classes=3, reduction=4).eval()(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 3, height, width)
    assert ELB.size_multiple == 8


def test_a_rate_that_the_paper_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"reduction is 3: it has to be one of \(2, 4\)"):
        ELB(reduction=3)
