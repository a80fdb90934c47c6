"""The self-test: every damage that changes something is caught, the others say why, and blindness is noticed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from deploykit.graph.capture import capture
from deploykit.network import LoadedNetwork, load_network
from deploykit.recipe import load_recipe, recipe_from_table
from deploykit.verify import self_test
from deploykit.verify.reparam import training_graph, verify_reparam
from deploykit.verify.samples import draw_samples
from deploykit.verify.self_test import STATISTICS, dead_channels, inject

TABLE = {
    "format_version": 1,
    "name": "small",
    "description": "a network of this test",
    "license": "MIT",
    "source": "this test",
    "network": {"factory": "given"},
    "inputs": [
        {
            "name": "image",
            "shape": [1, 3, 12, 12],
            "mean": [127.5],
            "scale": [0.0078],
            "source": "this test",
        }
    ],
    "outputs": [{"name": "scores", "meaning": "scores", "classes": ["background", "person"]}],
}
CHANNELS = 4


def block(norm, channels=CHANNELS):
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(channels, 2, 1))


def random_norm(**options):
    norm = nn.BatchNorm2d(CHANNELS, **options)
    norm.running_mean.copy_(torch.tensor([0.3, -0.4, 0.5, -0.2]))
    norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.5, 0.8]))
    if norm.affine:
        with torch.no_grad():
            norm.weight.copy_(torch.tensor([1.5, -0.7, 0.9, 1.2]))
            norm.bias.copy_(torch.tensor([0.4, 0.8, 0.6, 0.5]))
    return norm


def outcomes(tmp_path, network, report=lambda done, total, module: None):
    """Dropped statistic → injection, of the only BatchNorm of ``network``."""
    torch.manual_seed(2)
    recipe = recipe_from_table(TABLE, tmp_path / "small.toml")
    item = recipe.file.inputs[0]
    training = capture(network.eval(), (torch.zeros(item.shape),), (item.spec(),), ("scores",))
    return {one.dropped: one for one in inject(training, recipe, draw_samples(recipe, portraits=0), report)}


def test_every_statistic_of_a_living_layer_is_caught(tmp_path):
    found = outcomes(tmp_path, block(random_norm()))
    assert list(found) == list(STATISTICS)
    for one in found.values():
        assert (one.outcome, one.reason) == ("caught", "")
        assert one.relative_l2 > 1e-6
        assert one.module == "1"


def test_a_layer_without_affine_parameters_has_neither_gamma_nor_beta(tmp_path):
    found = outcomes(tmp_path, block(random_norm(affine=False)))
    assert {name: one.outcome for name, one in found.items()} == {
        "gamma": "neutral",
        "beta": "neutral",
        "mean": "caught",
        "variance": "caught",
    }
    assert {found[name].reason for name in ("gamma", "beta")} == {"no affine parameters"}


@pytest.mark.parametrize(
    ("statistic", "attribute", "value"),
    [("gamma", "weight", 1.0), ("beta", "bias", 0.0), ("mean", "running_mean", 0.0)],
)
def test_a_statistic_that_is_neutral_already_changes_nothing(tmp_path, statistic, attribute, value):
    norm = random_norm()
    getattr(norm, attribute).data.fill_(value)
    found = outcomes(tmp_path, block(norm))
    assert found[statistic].outcome == "neutral"
    assert found[statistic].reason == f"{statistic} is already neutral"
    assert {one.outcome for name, one in found.items() if name != statistic} == {"caught"}


def test_a_variance_that_is_neutral_already_changes_nothing(tmp_path):
    norm = random_norm(eps=2**-10)
    norm.running_var.fill_(1 - norm.eps)
    found = outcomes(tmp_path, block(norm))
    assert found["variance"].reason == "variance is already neutral"


def test_mean_and_variance_of_dead_channels_change_nothing_and_the_reason_counts_them(tmp_path):
    norm = random_norm()
    nn.init.constant_(norm.weight, 0.0)
    found = outcomes(tmp_path, block(norm))
    assert {name: one.outcome for name, one in found.items()} == {
        "gamma": "caught",
        "beta": "caught",
        "mean": "neutral",
        "variance": "neutral",
    }
    assert found["mean"].reason == "4 of 4 channels dead (|gamma| < 1e-06)"


def test_one_living_channel_is_enough_to_be_caught(tmp_path):
    norm = random_norm()
    with torch.no_grad():
        norm.weight[1:] = 1e-9
    assert {one.outcome for one in outcomes(tmp_path, block(norm)).values()} == {"caught"}


def test_a_change_that_does_not_reach_the_output_is_neutral_with_its_reason(tmp_path):
    network = block(random_norm())
    with torch.no_grad():
        network[1].bias.fill_(-100.0)  # every activation stays below zero whatever happens to mean or variance
    found = outcomes(tmp_path, network)
    for dropped in ("gamma", "mean", "variance"):
        assert found[dropped].outcome == "neutral"
        assert "0 of 4 channels dead" in found[dropped].reason
        assert "does not reach the output" in found[dropped].reason
    assert found["beta"].outcome == "caught"


def test_tiny_gammas_that_still_count_are_caught(tmp_path):
    norm = random_norm()
    nn.init.constant_(norm.weight, 1e-7)
    assert outcomes(tmp_path, block(norm))["gamma"].outcome == "caught"


def test_a_batch_norm_that_is_not_consumed_is_not_injected(tmp_path):
    network = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3), nn.Conv2d(3, 2, 1))
    assert outcomes(tmp_path, network) == {}


def test_progress_is_reported_for_each_layer(tmp_path):
    said = []
    outcomes(tmp_path, block(random_norm()), lambda *news: said.append(news))
    assert [(done, total) for done, total, _ in said] == [(0, 1), (1, 1)]


# Blindness


def blind(real=self_test.simplify):
    """A simplification that never sees a damage: it always returns what the undamaged network becomes."""
    undamaged = {}

    def simplify(graph, *, keep_outputs):
        if not undamaged:
            undamaged["deploy"] = real(graph, keep_outputs=keep_outputs)
        return undamaged["deploy"]

    return simplify


def test_a_blind_comparison_is_reported_as_missed(tmp_path, monkeypatch):
    monkeypatch.setattr(self_test, "simplify", blind())
    found = outcomes(tmp_path, block(random_norm()))
    assert {one.outcome for one in found.values()} == {"missed"}


def test_missed_damage_is_a_finding(tmp_path, monkeypatch):
    network = block(random_norm()).eval()
    recipe = recipe_from_table(TABLE, tmp_path / "small.toml")
    loaded = LoadedNetwork(recipe, network, tmp_path / "small.pt", "0" * 64, ())
    samples = draw_samples(recipe, portraits=0)
    honest = verify_reparam(loaded, samples, self_test=True)
    assert honest.passed
    assert len(honest.injections) == 4
    monkeypatch.setattr(self_test, "simplify", blind())
    result = verify_reparam(loaded, samples, self_test=True)
    assert not result.passed
    (finding,) = result.findings
    assert finding.startswith("self-test: damage not caught: gamma of")
    assert verify_reparam(loaded, samples).injections == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damage_that_ends_in_nan_counts_as_caught(value):
    truth = [[torch.ones(1, 2)]]
    assert self_test._distance([[torch.tensor([[1.0, value]])]], truth) == float("inf")
    assert self_test._distance(truth, truth) == 0.0


# Dead channels


def test_dead_channels_are_counted_per_layer(tmp_path):
    norm = random_norm()
    with torch.no_grad():
        norm.weight[:2] = torch.tensor([9e-7, -9e-7])
        norm.weight[2] = 1.1e-6
    network = block(norm)
    recipe = recipe_from_table(TABLE, tmp_path / "small.toml")
    training = training_graph(LoadedNetwork(recipe, network.eval(), tmp_path, "", ()))
    (layer,) = dead_channels(training)
    assert (layer.dead, layer.channels) == (2, CHANNELS)


@pytest.mark.full
def test_the_real_network_has_103_dead_channels(shared_cases):
    network = load_network(load_recipe("sinet"), checkpoint=shared_cases / "sinet_clovaai" / "SINet.pth")
    layers = dead_channels(training_graph(network))
    assert sum(layer.dead for layer in layers) == 103
    state = network.module.state_dict()
    for layer in layers:
        gamma = state[f"{layer.module}.weight"]
        assert (layer.dead, layer.channels) == (int((gamma.abs() < 1e-6).sum()), gamma.numel())


@pytest.mark.full
@pytest.mark.parametrize("checkpoint", ["bundled", "real"])
def test_every_damage_to_sinet_is_caught_or_neutral(checkpoint, request):
    path = None
    if checkpoint == "real":
        path = request.getfixturevalue("shared_cases") / "sinet_clovaai" / "SINet.pth"
    network = load_network(load_recipe("sinet"), checkpoint=path)
    result = verify_reparam(network, draw_samples(network.recipe, portraits=1), self_test=True)
    assert result.passed, result.findings
    assert len(result.injections) == 4 * network.recipe.file.expected.fold_batch_norm
    assert all(one.reason for one in result.injections if one.outcome == "neutral")
