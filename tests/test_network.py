"""From a recipe to a network: factories of the user's own code, and the checkpoint that belongs to it."""

from __future__ import annotations

import sys
import textwrap

import pytest
import torch
from torch import nn

from deploykit.checkpoint import read_checkpoint
from deploykit.errors import CheckpointError, RecipeError
from deploykit.network import build_network, load_network, recipe_for, recognise
from deploykit.recipe import load_recipe

RECIPE = """
format_version = 1
name = "own"
description = "a network of this test"
license = "MIT"
source = "this test"

[network]
factory = "{factory}"
arguments = {{ {arguments} }}

[[inputs]]
name = "image"
shape = [1, 3, 16, 16]
source = "this test"

[[outputs]]
name = "scores"
meaning = "scores"
{rest}
"""
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels=4, *, kernel=1):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, kernel)

    def forward(self, x):
        return self.conv(x)
"""


def own(folder, code, factory="own_net:Net", arguments="", rest=""):
    """A recipe in ``folder`` whose network is in ``own_net.py`` beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    if code is not None:
        (folder / "own_net.py").write_text(textwrap.dedent(code), "utf-8")
    path = folder / "own.toml"
    path.write_text(RECIPE.format(factory=factory, arguments=arguments, rest=rest), "utf-8")
    return load_recipe(path)


def refused(recipe, match):
    with pytest.raises(RecipeError, match=match) as caught:
        build_network(recipe)
    assert str(recipe.path) in caught.value.where
    return caught.value


# Where a factory is found


def test_a_factory_beside_the_recipe_is_found(tmp_path):
    path = list(sys.path)
    network = build_network(own(tmp_path, NET, arguments="channels = 5, kernel = 3"))
    assert (network.conv.out_channels, network.conv.kernel_size) == (5, (3, 3))
    assert not network.training
    assert sys.path == path


def test_a_factory_in_the_current_folder_is_found(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    (here / "net_of_the_current_folder.py").write_text(NET, "utf-8")
    monkeypatch.chdir(here)
    recipe = own(tmp_path / "recipes", None, factory="net_of_the_current_folder:Net")
    assert build_network(recipe).conv.out_channels == 4


def test_a_factory_in_a_package_or_a_class_is_found(tmp_path):
    package = tmp_path / "own_package" / "deep"
    package.mkdir(parents=True)
    (package / "nets.py").write_text(NET + "\nclass Zoo:\n    small = Net\n", "utf-8")
    recipe = own(tmp_path, None, factory="own_package.deep.nets:Zoo.small", arguments="channels = 2")
    assert build_network(recipe).conv.out_channels == 2


def test_a_factory_may_import_when_it_is_called(tmp_path):
    (tmp_path / "own_blocks.py").write_text(NET, "utf-8")
    code = """
    def build():
        from own_blocks import Net
        return Net()
    """
    assert isinstance(build_network(own(tmp_path, code, factory="own_net:build")), nn.Module)


def test_fresh_weights_are_seeded_and_the_callers_generator_is_untouched(tmp_path):
    recipe = own(tmp_path, NET)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = build_network(recipe)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert torch.equal(first.conv.weight, build_network(recipe).conv.weight)
    assert first.conv.weight.requires_grad


@pytest.mark.parametrize("packaged", [False, True])
def test_two_folders_may_have_modules_of_the_same_names(tmp_path, packaged):
    recipes = []
    for name, channels in (("a", 3), ("b", 7)):
        folder = tmp_path / name
        code = folder / "own_models" if packaged else folder
        code.mkdir(parents=True)
        (code / "own_width.py").write_text(f"CHANNELS = {channels}\n", "utf-8")
        nets = f"from {'own_models.' if packaged else ''}own_width import CHANNELS\n" + NET.replace("=4", "=CHANNELS")
        (code / "same_name.py").write_text(nets, "utf-8")
        recipes.append(own(folder, None, factory=f"{'own_models.' if packaged else ''}same_name:Net"))
    first, second = recipes
    assert build_network(first).conv.out_channels == 3
    assert build_network(second).conv.out_channels == 7
    assert build_network(first).conv.out_channels == 3
    assert type(build_network(first)) is type(build_network(first)), "a module is imported once for each folder"


def test_a_module_that_only_the_other_folder_has_is_not_borrowed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "own_lent.py").write_text("WIDTH = 3\n", "utf-8")
    build_network(own(tmp_path / "a", "import own_lent\n" + NET))
    refused(own(tmp_path / "b", "import own_lent\n" + NET), "No module named 'own_lent'")


def test_a_module_of_the_same_name_loaded_from_elsewhere_is_refused(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "net_of_somebody.py").write_text(NET, "utf-8")
    monkeypatch.syspath_prepend(str(elsewhere))
    __import__("net_of_somebody")
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "net_of_somebody.py").write_text(NET, "utf-8")
    error = refused(own(folder, None, factory="net_of_somebody:Net"), "loaded already from")
    assert str(elsewhere) in error.found
    assert str(folder) in error.found
    sys.modules.pop("net_of_somebody")


# Factories that are wrong


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        ("absent_module:Net", "No module named 'absent_module'"),
        ("own_net:Absent", "no attribute 'Absent'"),
        ("own_net:", "own_net:"),
        (":Net", "Empty module name"),
        (".own_net:Net", "relative import"),
        ("own_net.deep:Net", "not a package"),
    ],
)
def test_a_factory_that_is_not_there_is_refused(tmp_path, factory, found):
    error = refused(own(tmp_path, NET, factory=factory), "cannot be imported")
    assert found in error.found
    assert error.__cause__ is not None


@pytest.mark.parametrize(
    "code",
    ["def Net(:", "1 / 0", "import absent_thing", "import sys\nsys.exit(3)", "raise RuntimeError('no GPU')", "\0"],
)
def test_a_module_that_fails_on_import_is_refused(tmp_path, code):
    error = refused(own(tmp_path, code), "cannot be imported")
    assert type(error.__cause__).__name__ in error.found
    build_network(own(tmp_path, NET))  # the mistake corrected, in the same process


def test_an_unknown_network_lists_those_there_are(tmp_path):
    error = refused(own(tmp_path, None, factory="sinnet"), "no such network")
    assert "sinet, rcrnet" in error.expected


@pytest.mark.parametrize("arguments", ["chanels = 4", "channels = 4, kernel = 1, width = 2"])
def test_wrong_arguments_show_the_signature(tmp_path, arguments):
    error = refused(own(tmp_path, NET, arguments=arguments), "does not take these arguments")
    assert "channels=4, *, kernel=1" in error.expected
    assert error.where.endswith("network.arguments")


def test_a_missing_argument_is_named(tmp_path):
    error = refused(own(tmp_path, NET.replace("channels=4", "channels")), "does not take these arguments")
    assert "'channels'" in error.found


@pytest.mark.parametrize(
    "failure",
    [
        "raise KeyError('width')",
        "raise RuntimeError('no GPU')",
        "'a' + 1",
        "assert channels > 9",
        "raise SystemExit(2)",
    ],
)
def test_a_factory_that_raises_is_one_error_with_its_cause(tmp_path, failure):
    code = NET.replace("super().__init__()", f"super().__init__()\n        {failure}")
    error = refused(own(tmp_path, code, arguments="channels = 4"), "factory failed")
    assert type(error.__cause__).__name__ in error.found
    assert "{'channels': 4}" in error.found


def test_bundled_networks_refuse_wrong_arguments_too(tmp_path):
    refused(own(tmp_path, None, factory="sinet", arguments="width = 2"), "does not take these arguments")
    refused(own(tmp_path, None, factory="sinet", arguments='classes = "2"'), "factory failed")


@pytest.mark.parametrize("value", ["None", "dict", "lambda: None", "list"])
def test_a_factory_that_is_or_returns_no_network_is_refused(tmp_path, value):
    refused(own(tmp_path, f"Net = {value}"), "cannot be called|does not return a network")


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("def train(self, mode=True):\n        super().train(mode)", "does not return the network"),
        ("def train(self):\n        return self", "factory failed"),
        ("def eval(self):\n        raise RuntimeError('training only')", "factory failed"),
    ],
)
def test_an_own_train_that_breaks_evaluation_is_refused(tmp_path, override, match):
    refused(own(tmp_path, NET + f"\n    {override}\n"), match)


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """Saved weights of the network of ``NET``."""
    network = build_network(own(tmp_path, NET))
    path = tmp_path / "own.pt"
    torch.save(network.state_dict(), path)
    return path


def test_no_checkpoint_named_and_none_given(tmp_path):
    with pytest.raises(CheckpointError, match="names no checkpoint") as caught:
        load_network(own(tmp_path, NET))
    assert "--checkpoint" in caught.value.expected


def test_a_checkpoint_of_the_recipe_is_loaded(tmp_path, checkpoint):
    loaded = load_network(own(tmp_path, NET, rest='[checkpoint]\npath = "own.pt"\n'))
    assert loaded.checkpoint_path == checkpoint.resolve()
    assert loaded.checkpoint_sha256 == read_checkpoint(checkpoint).sha256
    assert not loaded.module.training


def test_another_file_than_the_recipe_names_is_refused(tmp_path, checkpoint):
    recipe = own(tmp_path, NET, rest=f'[checkpoint]\npath = "own.pt"\nsha256 = "{"0" * 64}"\n')
    with pytest.raises(CheckpointError, match="not the one") as caught:
        load_network(recipe)
    assert read_checkpoint(checkpoint).sha256 in caught.value.found
    assert "0" * 64 in caught.value.expected
    assert load_network(recipe, checkpoint=checkpoint).module is not None, "a file that is given stands for itself"


def test_a_checkpoint_of_another_network_is_refused(tmp_path, checkpoint):
    with pytest.raises(CheckpointError, match=r"conv\.weight"):
        load_network(own(tmp_path, NET, arguments="channels = 9"), checkpoint=checkpoint)


def test_weight_normalisation_loads(tmp_path):
    code = NET.replace("nn.Conv2d(3, channels, kernel)", "weight_norm(nn.Conv2d(3, channels, kernel))").replace(
        "from torch import nn",
        "import warnings\nwarnings.simplefilter('ignore')\n"
        "from torch import nn\nfrom torch.nn.utils import weight_norm",
    )
    network = build_network(own(tmp_path, code))
    with torch.no_grad():
        network.conv.weight_g.mul_(2)
    torch.save(network.state_dict(), tmp_path / "own.pt")
    loaded = load_network(own(tmp_path, code), checkpoint=tmp_path / "own.pt").module
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(loaded(x), network(x))


# Which recipe a checkpoint belongs to


@pytest.mark.parametrize("name", ["sinet", "rcrnet"])
def test_a_bundled_checkpoint_is_recognised(name):
    path = load_recipe(name).checkpoint_path()
    assert recognise(read_checkpoint(path)).name == name
    assert recipe_for(None, path, "sinet").name == name


def test_the_real_checkpoint_is_recognised(shared_cases):
    assert recipe_for(None, shared_cases / "sinet_clovaai" / "SINet.pth", "rcrnet").name == "sinet"


def test_a_foreign_checkpoint_is_never_taken_for_the_default(checkpoint):
    with pytest.raises(CheckpointError, match="belongs to no network") as caught:
        recipe_for(None, checkpoint, "sinet")
    assert "nearest by shapes is" in caught.value.found


def test_one_missing_tensor_is_named_with_the_network_that_is_near(tmp_path):
    state = torch.load(load_recipe("rcrnet").checkpoint_path(), weights_only=True)
    lost = "encoder.3.rcr2.conv1.1.running_mean"
    del state[lost]
    torch.save(state, tmp_path / "lost.pth")
    with pytest.raises(CheckpointError, match="rcrnet is near") as caught:
        recipe_for(None, tmp_path / "lost.pth", "sinet")
    assert f"1 missing: {lost}" in caught.value.found


def test_a_named_recipe_comes_first_and_the_default_last(checkpoint):
    assert recipe_for("rcrnet", checkpoint, "sinet").name == "rcrnet"
    assert recipe_for(None, None, "rcrnet").name == "rcrnet"
