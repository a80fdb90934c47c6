"""Verification of folding and merging: what passes, and each thing that must not."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.checkpoint import read_checkpoint
from deploykit.errors import CaptureError
from deploykit.graph import algebra
from deploykit.network import LoadedNetwork, build_network, load_network
from deploykit.recipe import load_recipe
from deploykit.verify.reference import reference_outputs
from deploykit.verify.reparam import verify_reparam
from deploykit.verify.samples import draw_samples

RECIPE = """
format_version = 1
name = "small"
description = "a network of this test"
license = "MIT"
source = "this test"

[network]
factory = "reparam_net:Net"

[[inputs]]
name = "image"
shape = [1, 3, 16, 16]
mean = [127.5]
scale = [0.0078]
source = "this test"

[[outputs]]
name = "scores"
meaning = "scores"
classes = ["background", "person"]

[[outputs]]
name = "edge"
meaning = "for training"
deploy = false

[expected]
fold_batch_norm = {folds}
merge_branches = {merges}
"""
NET = """
import torch
import torch.nn.functional as F
from torch import nn


def conv_bn(a, b, k, **options):
    return nn.Sequential(nn.Conv2d(a, b, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(b))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = conv_bn(3, 6, 3, stride=2)
        self.wide, self.point = conv_bn(6, 6, 3, groups=6), conv_bn(6, 6, 1, groups=6)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Sequential(nn.Conv2d(6, 2, 1), nn.BatchNorm2d(2))
        self.edge = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.drop(F.relu(self.wide(x) + self.point(x) + x))
        return self.head(x), self.edge(x)
"""


def randomize(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.3, 2.0, generator=generator)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5, generator=generator)[::2] *= -1
                module.bias.data.normal_(generator=generator)
    return network


def loaded(folder, code=NET, folds=4, merges=1, recipe=RECIPE):
    """The network of ``code`` with random statistics, as a recipe in ``folder`` loads it."""
    (folder / "reparam_net.py").write_text(textwrap.dedent(code), "utf-8")
    path = folder / "small.toml"
    path.write_text(recipe.format(folds=folds, merges=merges), "utf-8")
    given = load_recipe(path)
    torch.save(randomize(build_network(given)).state_dict(), folder / "small.pt")
    return load_network(given, checkpoint=folder / "small.pt")


def verified(network, **options):
    return verify_reparam(network, draw_samples(network.recipe), **options)


def test_a_network_that_folds_and_merges_passes(tmp_path):
    network = loaded(tmp_path)
    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    result = verified(network)
    assert result.passed
    assert result.findings == ()
    assert {name: c.output for name, c in result.comparisons} == {"float64": "scores", "float32": "scores"}
    assert result.checkpoint_sha256 == read_checkpoint(tmp_path / "small.pt").sha256
    assert dict(result.comparisons)["float64"].relative_l2 <= 1e-12
    assert 1e-9 < dict(result.comparisons)["float32"].relative_l2 <= 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.module.state_dict().items())


def test_the_stages_add_up_to_the_passes(tmp_path):
    result = verified(loaded(tmp_path))
    assert sum(stage.folded for stage in result.stages) == 4
    assert sum(stage.merged for stage in result.stages) == 1
    assert sum(stage.left for stage in result.stages) == 0
    assert {stage.stage.split(".")[0] for stage in result.stages} <= {"stem", "wide", "point", "head"}


@pytest.mark.full
@pytest.mark.parametrize("name", ["sinet", "rcrnet"])
def test_the_bundled_networks_pass(name):
    network = load_network(load_recipe(name))
    result = verify_reparam(network, draw_samples(network.recipe, portraits=1))
    assert result.passed, result.findings
    expected = network.recipe.file.expected
    assert sum(stage.folded for stage in result.stages) == expected.fold_batch_norm
    assert sum(stage.merged for stage in result.stages) == expected.merge_branches


def test_the_real_network_passes_on_real_photos(shared_cases):
    network = load_network(load_recipe("sinet"), checkpoint=shared_cases / "sinet_clovaai" / "SINet.pth")
    photos = [shared_cases / "images" / "astronaut.png", shared_cases / "images" / "tfjs_portrait.jpg"]
    result = verify_reparam(network, draw_samples(network.recipe, photos, portraits=0))
    assert result.passed, result.findings
    exact, shipped = (dict(result.comparisons)[name] for name in ("float64", "float32"))
    assert exact.relative_l2 <= 1e-13
    assert shipped.max_abs_error <= 1e-4
    assert (exact.wrong_pixels, shipped.wrong_pixels) == (0, 0)
    assert exact.mask_agreement == 1.0
    assert sum(layer.dead for layer in result.dead_channels) == 103


@pytest.mark.parametrize(("folds", "merges", "name"), [(5, 1, "fold_batch_norm"), (4, 0, "merge_branches")])
def test_another_count_than_the_recipe_expects_is_a_finding(tmp_path, folds, merges, name):
    result = verified(loaded(tmp_path, folds=folds, merges=merges))
    assert not result.passed
    (finding,) = result.findings
    assert finding.startswith(f"{name} fired")
    assert f"expects {folds if name == 'fold_batch_norm' else merges}" in finding
    assert all(comparison.passed for _, comparison in result.comparisons)


def test_a_batch_norm_that_stays_gives_its_reason(tmp_path):
    code = NET.replace("x = F.relu(self.stem(x))", "x = self.late(F.relu(self.stem(x)))").replace(
        "self.drop =", "self.late = nn.BatchNorm2d(6)\n        self.drop ="
    )
    result = verified(loaded(tmp_path, code, folds=5))
    assert any("fired 4 times" in finding and "no convolution before it" in finding for finding in result.findings)
    assert {stage.stage: stage.left for stage in result.stages}["late"] == 1


# Damage


def worse(weight, bias, stats, right=algebra.fold_conv_batch_norm):
    folded, shift = right(weight, bias, stats)
    return folded * (1 + 1e-9), shift


def without(statistic, neutral):
    def fold(weight, bias, stats, right=algebra.fold_conv_batch_norm):
        values = {key: getattr(stats, key) for key in ("gamma", "beta", "mean", "var", "eps")}
        values[statistic] = torch.full_like(values[statistic], neutral)
        return right(weight, bias, algebra.BatchNormStats(**values))

    return fold


def at_place(damage, place, right=algebra.fold_conv_batch_norm):
    calls = []

    def fold(*arguments):
        calls.append(arguments)
        return damage(*arguments) if len(calls) == place + 1 else right(*arguments)

    return fold


DAMAGES = {
    "a billionth": worse,
    "mean": without("mean", 0.0),
    "variance": without("var", 1.0),
    "gamma": without("gamma", 1.0),
    "beta": without("beta", 0.0),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("place", "module"), [pytest.param(0, "stem", marks=pytest.mark.full), (3, "head")])
def test_a_damaged_fold_fails_and_is_named(tmp_path, monkeypatch, damage, place, module):
    network = loaded(tmp_path)
    monkeypatch.setattr(algebra, "fold_conv_batch_norm", at_place(DAMAGES[damage], place))
    result = verified(network)
    assert not result.passed
    assert not dict(result.comparisons)["float64"].passed
    assert any("first module whose value differs" in finding and module in finding for finding in result.findings)


def test_the_float32_tolerance_alone_would_not_see_a_billionth(tmp_path, monkeypatch):
    network = loaded(tmp_path)
    monkeypatch.setattr(algebra, "fold_conv_batch_norm", at_place(worse, 0))
    assert dict(verified(network).comparisons)["float32"].passed


@pytest.mark.full
def test_a_damaged_fold_of_the_real_network_is_named(shared_cases, monkeypatch):
    network = load_network(load_recipe("sinet"), checkpoint=shared_cases / "sinet_clovaai" / "SINet.pth")
    monkeypatch.setattr(algebra, "fold_conv_batch_norm", at_place(DAMAGES["mean"], 0))
    result = verify_reparam(network, draw_samples(network.recipe, portraits=0))
    assert not result.passed
    assert any("encoder.level1" in finding for finding in result.findings)


def test_a_value_that_is_not_finite_names_output_sample_and_module(tmp_path):
    network = loaded(tmp_path)
    network.module.wide[1].running_var[2] = -5.0
    result = verified(network)
    assert not result.passed
    assert any("returns NaN or infinity in scores on noise 0; first in wide.1" in f for f in result.findings)
    assert not any(comparison.passed for _, comparison in result.comparisons)


def test_overflow_in_float32_alone_fails(tmp_path):
    network = loaded(tmp_path, NET.replace("return self.head(x)", "return self.head(x * 1e30) * 1e30"))
    result = verified(network)
    assert dict(result.comparisons)["float64"].passed
    assert "the output holds NaN or infinity" in dict(result.comparisons)["float32"].failures


# Training mode


def training_finding(network):
    result = verified(network)
    assert not result.passed
    assert result.comparisons == ()
    (finding,) = result.findings
    return finding


def test_a_network_in_training_mode_is_named(tmp_path):
    network = loaded(tmp_path)
    network.module.train()
    assert "in training mode" in training_finding(network)


def test_submodules_left_in_training_mode_are_named(tmp_path):
    network = loaded(tmp_path)
    network.module.wide[1].train()
    network.module.drop.train()
    finding = training_finding(network)
    assert "wide.1" in finding
    assert "drop" in finding
    assert "stem" not in finding


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("def train(self, mode=True):\n        return super().train(True)", "(root)"),
        (
            "def train(self, mode=True):\n        super().train(mode)\n        self.wide.train()\n        return self",
            "wide.1",
        ),
        ("def eval(self):\n        return self", "stem.1"),
    ],
)
def test_an_own_train_that_keeps_training_is_a_finding(tmp_path, override, named):
    finding = training_finding(loaded(tmp_path, NET + f"\n    {override}\n"))
    assert "training" in finding
    assert named in finding


def test_a_module_of_the_user_that_stays_in_training_mode_is_a_finding(tmp_path):
    code = (
        NET
        + """

class Noise(nn.Module):
    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return x + 0.1 if self.training else x


class Stuck(Net):
    def __init__(self):
        super().__init__()
        self.drop = Noise()
"""
    )
    recipe = RECIPE.replace(":Net", ":Stuck")
    assert "drop" in training_finding(loaded(tmp_path, code, recipe=recipe))


@pytest.mark.parametrize(
    ("call", "named"),
    [("F.dropout(x, 0.5)", "dropout"), ("F.batch_norm(x, None, None, training=True)", "batch statistics")],
)
def test_training_behaviour_written_into_forward_is_a_finding(tmp_path, call, named):
    finding = training_finding(
        loaded(tmp_path, NET.replace("x = F.relu(self.stem(x))", f"x = {call.replace('x,', 'self.stem(x),')}"))
    )
    assert named in finding


# The reference


def test_the_reference_is_float64_and_leaves_the_network_alone(tmp_path):
    network = loaded(tmp_path)
    (outputs,) = reference_outputs(network.module, network.recipe, draw_samples(network.recipe, portraits=0))
    assert list(outputs) == ["scores", "edge"]
    assert outputs["scores"].dtype == np.float64
    assert network.module.stem[0].weight.dtype == torch.float32
    assert torch.get_default_dtype() == torch.float32


def test_a_forward_that_is_fixed_to_float32_is_refused_by_the_reference(tmp_path):
    network = loaded(tmp_path, NET.replace("self.stem(x)", "self.stem(x.float())"))
    with pytest.raises(CaptureError, match="float64") as caught:
        reference_outputs(network.module, network.recipe, draw_samples(network.recipe, portraits=0))
    assert caught.value.__cause__ is not None
    assert torch.get_default_dtype() == torch.float32


def test_an_error_without_a_message_is_still_one_error(tmp_path):
    network = loaded(tmp_path)

    def forward(x):
        raise RuntimeError

    network.module.forward = forward
    with pytest.raises(CaptureError, match="RuntimeError"):
        reference_outputs(network.module, network.recipe, draw_samples(network.recipe, portraits=0))


@pytest.mark.parametrize("names", ['"background", "person", "hair"', '"a", "b", "c", "d"'])
def test_another_number_of_classes_than_the_network_gives_is_refused(tmp_path, names):
    network = loaded(tmp_path, recipe=RECIPE.replace('"background", "person"', names))
    with pytest.raises(CaptureError, match="another number of classes") as caught:
        verified(network)
    assert "(1, 2, 8, 8)" in caught.value.found


def test_another_number_of_outputs_is_refused(tmp_path):
    network = loaded(tmp_path, NET.replace("return self.head(x), self.edge(x)", "return self.head(x)"))
    with pytest.raises(CaptureError, match="does not return what its recipe announces"):
        verified(network)
    with pytest.raises(CaptureError, match="found: 1 tensors"):
        reference_outputs(network.module, network.recipe, draw_samples(network.recipe, portraits=0))


def test_a_network_that_was_never_loaded_can_be_verified_too(tmp_path):
    network = loaded(tmp_path)
    bare = LoadedNetwork(network.recipe, network.module, tmp_path / "small.pt", "0" * 64, ("a note",))
    assert verified(bare).notes == ("a note",)
