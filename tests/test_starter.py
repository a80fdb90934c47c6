"""A recipe for a checkpoint at hand, and where the bundled files are."""

from __future__ import annotations

import shutil
import tomllib

import pytest
import torch

from deploykit.errors import CheckpointError, UsageError
from deploykit.models.rcrnet import RCRNet
from deploykit.network import load_network
from deploykit.recipe import load_recipe
from deploykit.resources import bundled
from deploykit.starter import write_starter


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "weights" / "mine.pt"
    path.parent.mkdir()
    shutil.copy(load_recipe("sinet").checkpoint_path(), path)
    return path


def test_the_recipe_points_at_the_checkpoint_and_loads(tmp_path, checkpoint):
    output = tmp_path / "mine.toml"
    notes = write_starter(checkpoint, output)
    assert "keys and shapes of sinet" in notes[0]
    section = tomllib.loads(output.read_text("utf-8"))["checkpoint"]
    assert section["path"] == "weights/mine.pt"
    network = load_network(load_recipe(output))
    assert network.checkpoint_path == checkpoint.resolve()
    assert network.checkpoint_sha256 == section["sha256"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.toml", "weights"]


@pytest.mark.parametrize(
    "name",
    [
        "größe.pt",
        pytest.param("小さい.pt", marks=pytest.mark.full),
        pytest.param("face \U0001f600.pt", marks=pytest.mark.full),
        'quote"d.pt',
        "back\\slash.pt",
    ],
)
def test_any_name_of_a_file_can_be_written_as_toml(tmp_path, checkpoint, name):
    renamed = checkpoint.rename(checkpoint.with_name(name))
    write_starter(renamed, tmp_path / "mine.toml")
    assert load_recipe(tmp_path / "mine.toml").checkpoint_path() == renamed.resolve()


def test_a_nested_key_is_kept(tmp_path, checkpoint):
    state = torch.load(checkpoint, weights_only=True)
    torch.save({"model": {name: value * 0 for name, value in state.items()}, "ema": state}, checkpoint)
    write_starter(checkpoint, tmp_path / "mine.toml", key="ema")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.file.checkpoint.key == "ema"
    loaded = load_network(recipe).module.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())


def test_an_existing_recipe_is_kept_unless_forced(tmp_path, checkpoint):
    output = tmp_path / "mine.toml"
    output.write_text("mine", "utf-8")
    with pytest.raises(UsageError, match="exists already"):
        write_starter(checkpoint, output)
    assert output.read_text("utf-8") == "mine"
    write_starter(checkpoint, output, overwrite=True)
    assert load_recipe(output).name == "sinet"


def test_a_known_network_whose_weights_are_not_bundled_gets_the_file_at_hand(tmp_path):
    torch.save(RCRNet(variant=2, prior=True).state_dict(), tmp_path / "mine.pt")
    write_starter(tmp_path / "mine.pt", tmp_path / "mine.toml")
    recipe = load_recipe(tmp_path / "mine.toml")
    assert recipe.name == "rcrnet-2-video"
    assert recipe.checkpoint_path() == tmp_path / "mine.pt"
    assert [item.name for item in recipe.file.inputs if item.feedback] == ["prior"]


def test_an_unknown_checkpoint_leaves_nothing_behind(tmp_path):
    torch.save({"conv.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="belongs to no network"):
        write_starter(tmp_path / "other.pt", tmp_path / "other.toml")
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt"]


@pytest.mark.parametrize("output", ["weights/mine.pt/mine.toml", "weights"])
def test_a_place_that_cannot_be_written_is_one_error(tmp_path, checkpoint, output):
    with pytest.raises(UsageError, match="cannot be written"):
        write_starter(checkpoint, tmp_path / output, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


@pytest.mark.parametrize(("kind", "names"), [("recipes", "*.toml"), ("checkpoints", "*.pt")])
def test_the_bundled_files_are_found(kind, names):
    assert {"rcrnet", "sinet"} <= {path.stem for path in bundled(kind).glob(names)}
