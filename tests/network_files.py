"""A network of a test with its recipe and checkpoint, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from deploykit.network import build_network
from deploykit.recipe import load_recipe


def write_network(folder: Path, package: str, source: str, recipe: str, weigh: Callable[[nn.Module], object]) -> Path:
    """Write ``source`` as PACKAGE.nets, ``recipe`` and the checkpoint it names; return the recipe.

    ``weigh`` changes the weights of the network before they are saved.
    """
    modules = folder / package
    modules.mkdir(parents=True)
    (modules / "__init__.py").write_text("", "utf-8")
    (modules / "nets.py").write_text(source, "utf-8")
    path = folder / "recipe.toml"
    path.write_text(recipe, "utf-8")
    read = load_recipe(path)
    network = build_network(read)
    weigh(network)
    checkpoint = read.checkpoint_path()
    assert checkpoint is not None
    torch.save(network.state_dict(), checkpoint)
    return path
