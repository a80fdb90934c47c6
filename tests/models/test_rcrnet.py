from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.models.rcrnet import RCR, RCRNet

PRINTED_MACS = 217e6


def parameters(network: nn.Module) -> tuple[int, int, int]:
    """Parameters in training form, with the RCR modules merged, and with every BatchNorm folded as well."""
    total = sum(parameter.numel() for parameter in network.parameters())
    # Per channel a module loses the 1x1 weight and its gamma and beta, and keeps one bias for the other pair.
    merged = total - sum(4 * m.conv1[0].out_channels for m in network.modules() if isinstance(m, RCR))
    inside = {id(norm) for m in network.modules() if isinstance(m, RCR) for norm in (m.conv3[1], m.conv1[1])}
    left = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d) and id(m) not in inside]
    return total, merged, merged - sum(norm.num_features for norm in left)


def conv_macs(network: nn.Module, size: int, merged: bool) -> int:
    """Conv2d multiply-accumulates, counted as the paper's tables count: transposed convolutions are left out."""
    merged_away = {id(module.conv1[0]) for module in network.modules() if isinstance(module, RCR)}
    counts: list[int] = []

    def count(module: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        if not merged or id(module) not in merged_away:
            counts.append(module.weight[0].numel() * output[0].numel())

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return sum(counts)


@pytest.fixture(scope="module")
def network() -> RCRNet:
    torch.manual_seed(0)
    return RCRNet().eval()


def test_cost_is_the_printed_one_within_four_percent(network: RCRNet) -> None:
    macs = conv_macs(network, 224, merged=True)
    assert macs == pytest.approx(PRINTED_MACS, rel=0.04)
    assert macs == pytest.approx(211.4e6, rel=1e-3), "the docstring states this figure"


def test_cost_of_the_unmerged_form_is_higher(network: RCRNet) -> None:
    assert conv_macs(network, 224, merged=False) > conv_macs(network, 224, merged=True)


def test_parameters_are_those_that_the_docstring_states(network: RCRNet) -> None:
    assert [round(count / 1e6, 3) for count in parameters(network)] == [0.619, 0.611, 0.607]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
def test_shapes_of_logits_and_edge_logits(network: RCRNet, height: int, width: int) -> None:
    with torch.no_grad():
        logits, edges = network(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 2, height, width)
    assert edges.shape == (2, 2, height // 2, width // 2)


def test_classes_set_the_channels_of_both_outputs() -> None:
    with torch.no_grad():
        logits, edges = RCRNet(classes=5).eval()(torch.randn(1, 3, 32, 32))
    assert (logits.shape[1], edges.shape[1]) == (5, 5)


def test_edge_head_does_not_reach_the_logits(network: RCRNet) -> None:
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = network(x)
        for parameter in network.edge_head.parameters():
            parameter.add_(1)
        after = network(x)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def merged_rcr(module: RCR, keep_identity: bool) -> nn.Conv2d:
    """One depthwise 3x3 convolution equal to the three branches, by equations 2 to 4."""
    channels = module.conv3[0].out_channels
    merged = nn.Conv2d(channels, channels, 3, padding=1, groups=channels).double()
    weight, bias = torch.zeros(channels, 1, 3, 3).double(), torch.zeros(channels).double()
    for convolution, norm in (module.conv3, module.conv1):
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        kernel = convolution.weight * scale[:, None, None, None]
        weight += kernel if kernel.shape[-1] == 3 else nn.functional.pad(kernel, [1, 1, 1, 1])
        bias += norm.bias - norm.running_mean * scale
    if keep_identity:
        weight[:, 0, 1, 1] += 1
    with torch.no_grad():
        merged.weight.copy_(weight)
        merged.bias.copy_(bias)
    return merged


def test_the_branches_of_a_module_equal_one_depthwise_convolution() -> None:
    torch.manual_seed(3)
    module = RCR(5, 8).double().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.3, 3)
    x = torch.randn(2, 5, 9, 7).double()
    with torch.no_grad():
        expected, inner = module(x), module.block1(x)
        assert torch.allclose(merged_rcr(module, keep_identity=True)(inner), expected, rtol=0, atol=1e-12)
        assert not torch.allclose(merged_rcr(module, keep_identity=False)(inner), expected, rtol=0, atol=1e-3)
