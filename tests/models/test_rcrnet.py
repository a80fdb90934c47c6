from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.models.rcrnet import RCR, RCRNet, StructureBUp

# Table 3 of the paper, and how far this reading may be from its MACs.
PRINTED = {1: (0.607e6, 157e6, 0.02), 2: (0.608e6, 177e6, 0.02), 3: (0.610e6, 190e6, 0.02), 4: (0.770e6, 217e6, 0.04)}
# As the docstring of the module states: parameters trained, merged and folded, then MACs, in millions.
STATED = {
    1: ([0.618, 0.612, 0.607], 159.3),
    2: ([0.616, 0.608, 0.604], 179.0),
    3: ([0.621, 0.615, 0.610], 190.4),
    4: ([0.619, 0.611, 0.607], 211.4),
}
VARIANTS = tuple(PRINTED)


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
def networks() -> dict[int, RCRNet]:
    torch.manual_seed(0)
    return {variant: RCRNet(variant=variant).eval() for variant in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
def test_cost_is_the_printed_one(networks: dict[int, RCRNet], variant: int) -> None:
    _, printed, tolerance = PRINTED[variant]
    macs = conv_macs(networks[variant], 224, merged=True)
    assert macs == pytest.approx(printed, rel=tolerance)
    assert round(macs / 1e6, 1) == STATED[variant][1]
    assert conv_macs(networks[variant], 224, merged=False) > macs


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameters_are_those_that_the_docstring_states(networks: dict[int, RCRNet], variant: int) -> None:
    assert [round(count / 1e6, 3) for count in parameters(networks[variant])] == STATED[variant][0]


@pytest.mark.parametrize("variant", [1, 2, 3])
def test_parameters_are_the_printed_ones_within_two_percent(networks: dict[int, RCRNet], variant: int) -> None:
    for count in parameters(networks[variant]):
        assert count == pytest.approx(PRINTED[variant][0], rel=0.02)


def test_the_printed_parameters_contradict_each_other() -> None:
    first, second, third, fourth = (PRINTED[variant][0] for variant in VARIANTS)
    assert second + third - first == pytest.approx(0.611e6)
    assert fourth > 1.25 * (second + third - first)


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize(("variant", "edges"), [(1, [1]), (2, [1]), (3, [1, 2]), (4, [2])])
def test_shapes_of_logits_and_edge_logits(variant: int, edges: list[int], prior: bool) -> None:
    network = RCRNet(variant=variant, prior=prior).eval()
    given = [torch.randn(2, channels, 64, 96) for channels in ((3, 1) if prior else (3,))]
    with torch.no_grad():
        shapes = [tuple(output.shape) for output in network(*given)]
    assert shapes == [(2, 2, 64 // share, 96 // share) for share in (1, *edges)]


def test_classes_set_the_channels_of_every_output() -> None:
    with torch.no_grad():
        outputs = RCRNet(classes=5, variant=3).eval()(torch.randn(1, 3, 32, 32))
    assert [output.shape[1] for output in outputs] == [5, 5, 5]


@pytest.mark.parametrize("variant", [0, 5, "4"])
def test_there_are_four_variants(variant: object) -> None:
    with pytest.raises(ValueError, match="1, 2, 3 or 4"):
        RCRNet(variant=variant)  # type: ignore[arg-type]


@pytest.mark.parametrize("variant", VARIANTS)
def test_edge_heads_do_not_reach_the_logits(variant: int) -> None:
    network, x = RCRNet(variant=variant).eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = network(x)
        for name, parameter in network.named_parameters():
            if "edge" in name:
                parameter.add_(1)
        after = network(x)
    assert torch.equal(before[0], after[0])
    assert not any(torch.equal(one, other) for one, other in zip(before[1:], after[1:], strict=True))


def test_the_prior_is_the_fourth_channel_of_the_stem() -> None:
    torch.manual_seed(1)
    plain, video = RCRNet().eval(), RCRNet(prior=True).eval()
    assert sum(p.numel() for p in video.parameters()) == sum(p.numel() for p in plain.parameters()) + 9 * 32
    state = plain.state_dict()
    fourth = torch.randn(32, 1, 3, 3)
    video.load_state_dict({**state, "stem.0.weight": torch.cat([state["stem.0.weight"], fourth], dim=1)})
    image, prior = torch.randn(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(video(image, torch.zeros_like(prior))[0], plain(image)[0], atol=1e-5)
        assert not torch.allclose(video(image, prior)[0], plain(image)[0], atol=1e-3)


def randomized(module: nn.Module) -> nn.Module:
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.3, 3)
    return module.double().eval()


def test_the_shortcut_and_the_resize_of_a_decoder_stage_commute() -> None:
    torch.manual_seed(2)
    before = randomized(StructureBUp(6, 4, resized_first=True))
    after = StructureBUp(6, 4, resized_first=False).double().eval()
    after.load_state_dict(before.state_dict())
    x = torch.randn(2, 6, 5, 7).double()
    with torch.no_grad():
        assert torch.allclose(before(x), after(x), rtol=0, atol=1e-12)
        after.shortcut[1].bias.add_(1e-3)
        assert not torch.allclose(before(x), after(x), rtol=0, atol=1e-12)


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
    module = randomized(RCR(5, 8))
    x = torch.randn(2, 5, 9, 7).double()
    with torch.no_grad():
        expected, inner = module(x), module.block1(x)
        assert torch.allclose(merged_rcr(module, keep_identity=True)(inner), expected, rtol=0, atol=1e-12)
        assert not torch.allclose(merged_rcr(module, keep_identity=False)(inner), expected, rtol=0, atol=1e-3)
