"""PortraitNet against its facts: parameters, cost of every part, and the keys of the public checkpoint."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.checkpoint import read_checkpoint
from deploykit.errors import CheckpointError
from deploykit.models.portraitnet import PortraitNet
from deploykit.network import load_network, recognise
from deploykit.recipe import load_recipe

# Part → parameters and multiply-accumulates at 224 x 224 in millions, transposed ones counted at their input.
PARTS = {
    "stage0": (928, 10.84),
    "stage1": (1_984, 22.88),
    "stage2": (13_968, 54.94),
    "stage3": (39_696, 37.44),
    "stage4": (183_872, 38.50),
    "stage5": (303_168, 58.10),
    "stage6": (795_264, 46.56),
    "stage7": (473_920, 23.00),
    "transit1": (75_808, 3.65),
    "transit2": (8_768, 1.63),
    "transit3": (2_872, 2.05),
    "transit4": (1_560, 4.34),
    "transit5": (632, 6.72),
    "deconv1": (147_456, 7.23),
    "deconv2": (16_384, 3.21),
    "deconv3": (9_216, 7.23),
    "deconv4": (4_096, 12.85),
    "deconv5": (1_024, 12.85),
    "pred": (144, 7.23),
    "edge": (144, 7.23),
}


@pytest.fixture(scope="module")
def network() -> PortraitNet:
    torch.manual_seed(0)
    return PortraitNet().eval()


@pytest.fixture(scope="module")
def macs(network: PortraitNet) -> dict[str, int]:
    """Part → its multiply-accumulates at 224 x 224."""
    counted: dict[str, int] = dict.fromkeys(PARTS, 0)

    def count(name: str, module: nn.Conv2d, given: torch.Tensor, output: torch.Tensor) -> None:
        steps = given if isinstance(module, nn.ConvTranspose2d) else output
        counted[name.partition(".")[0]] += module.weight[0].numel() * steps[0].numel()

    hooks = [
        module.register_forward_hook(lambda m, given, output, name=name: count(name, m, given[0], output))
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 224, 224))
    for hook in hooks:
        hook.remove()
    return counted


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 2_080_904),
        ({"edge_head": False}, 2_080_760),
        ({"edge_head": False, "prior": True}, 2_081_048),
        ({"prior": True}, 2_081_192),
        ({"edge_head": False, "decoder": "bilinear"}, 2_080_760 - 178_176),
    ],
)
def test_parameters_of_each_variant(arguments, expected):
    with torch.device("meta"):
        assert parameters(PortraitNet(**arguments)) == expected


@pytest.mark.parametrize("part", PARTS)
def test_parameters_and_cost_of_each_part(network, macs, part):
    expected_parameters, expected_macs = PARTS[part]
    assert parameters(network.get_submodule(part)) == expected_parameters
    assert round(macs[part] / 1e6, 2) == expected_macs


def test_convolution_cost_as_the_tables_of_the_other_papers_count_it(macs):
    assert sum(count for part, count in macs.items() if not part.startswith("deconv")) == 325_110_688
    assert sum(macs.values()) - macs["edge"] == pytest.approx(361.2e6, rel=1e-3)


def test_convolutions_have_no_bias_and_every_batch_norm_the_usual_epsilon(network):
    convolutions = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(module.bias is None for module in convolutions)
    assert {module.eps for module in norms} == {1e-5}
    # The transposed convolutions and both heads have no BatchNorm.
    assert len(norms) == len(convolutions) - 7 == load_recipe("portraitnet").file.expected.fold_batch_norm


def public_shapes(shared_cases):
    """Key → shape of the public checkpoint with the edge head; it has no BatchNorm step counters."""
    lines = (shared_cases.parent / "facts" / "state_dict_keys" / "portraitnet_addEdge_keys.txt").read_text("utf-8")
    pairs = (line.split(" ", 1) for line in lines.splitlines())
    return {key: tuple(int(size) for size in shape.strip("(), ").split(",")) for key, shape in pairs}


def public_file(path, shapes):
    """Write a file as the public code saves one, with random values; return its state dict."""
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.rand(shape, generator=generator) for key, shape in shapes.items()}
    torch.save({"state_dict": state, "minLoss": 0.125, "epoch": 1999}, path)
    return state


def test_the_public_checkpoint_is_recognised_and_loads_strictly(shared_cases, tmp_path):
    path = tmp_path / "model_best.pth.tar"
    state = public_file(path, public_shapes(shared_cases))
    assert len(state) == 392
    recipe = recognise(read_checkpoint(path))
    assert recipe.name == "portraitnet"
    loaded = load_network(recipe, checkpoint=path).module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert all(key in state or key.endswith("num_batches_tracked") for key in loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda shapes: shapes.pop("edge.weight"), "1 missing: edge.weight"),
        (lambda shapes: shapes.pop("transit3.residual.1.running_mean"), "1 missing: transit3.residual.1.running_mean"),
        (lambda shapes: shapes.update({"stage0.0.weight": (32, 4, 3, 3)}), r"1 wrong shape: stage0.0.weight"),
        (lambda shapes: shapes.update({"stage8.weight": (1,)}), "1 unexpected: stage8.weight"),
    ],
    ids=["no edge head", "no mean", "four channels", "one more"],
)
def test_one_key_off_does_not_load(shared_cases, tmp_path, change, message):
    shapes = public_shapes(shared_cases)
    change(shapes)
    public_file(tmp_path / "w.pth.tar", shapes)
    with pytest.raises(CheckpointError, match=message):
        load_network(load_recipe("portraitnet"), checkpoint=tmp_path / "w.pth.tar")


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("portraitnet-bilinear", {"decoder": "bilinear"}),
        ("portraitnet-no-edge", {"edge_head": False}),
        ("portraitnet-video", {"edge_head": False, "prior": True}),
    ],
)
def test_the_other_variants_are_recognised_by_their_keys_and_shapes(tmp_path, name, arguments):
    path = tmp_path / "own.pt"
    torch.save(PortraitNet(**arguments).state_dict(), path)
    assert recognise(read_checkpoint(path)).name == name


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
@pytest.mark.parametrize("decoder", ["transposed", "bilinear"])
def test_both_outputs_have_the_size_of_the_input(decoder, height, width):
    with torch.no_grad():
        logits, edge = PortraitNet(classes=3, decoder=decoder).eval()(torch.randn(2, 3, height, width))
    assert logits.shape == (2, 3, height, width)
    assert edge.shape == (2, 2, height, width)
    assert PortraitNet.size_multiple == 32


def test_the_edge_head_does_not_reach_the_logits(network):
    x = torch.randn(1, 3, 32, 32)
    bare = PortraitNet(edge_head=False).eval()
    bare.load_state_dict({key: value for key, value in network.state_dict().items() if key != "edge.weight"})
    with torch.no_grad():
        logits, edge = network(x)
        assert torch.equal(bare(x), logits)
    assert not torch.equal(edge, logits)


def test_the_prior_is_the_fourth_channel():
    torch.manual_seed(2)
    still, video = PortraitNet(edge_head=False).eval(), PortraitNet(edge_head=False, prior=True).eval()
    state = still.state_dict()
    state["stage0.0.weight"] = torch.cat([state["stage0.0.weight"], torch.ones(32, 1, 3, 3)], dim=1)
    video.load_state_dict(state)
    image, prior = torch.randn(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        expected = still(image)
        assert (video(image, torch.zeros_like(prior)) - expected).norm() < 1e-5 * expected.norm()
        assert (video(image, prior) - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize(("prior", "given"), [(True, 1), (False, 2)])
def test_a_prior_is_given_exactly_where_the_network_takes_one(prior, given):
    inputs = (torch.zeros(1, 3, 32, 32), torch.zeros(1, 1, 32, 32))
    with pytest.raises(ValueError, match="prior=True"):
        PortraitNet(prior=prior).eval()(*inputs[:given])


def test_an_unknown_decoder_is_refused():
    with pytest.raises(ValueError, match="'nearest'"):
        PortraitNet(decoder="nearest")
