"""A recipe with a network of its own, ready to be measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from bench_cases import NETWORK, RECIPE


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """The path of a recipe whose network and checkpoint lie beside it."""
    folder = tmp_path / "recipe"
    folder.mkdir()
    (folder / "tiny_bench_network.py").write_text(NETWORK, "utf-8")
    (folder / "tiny.toml").write_text(RECIPE, "utf-8")
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    torch.save(layers.state_dict(), folder / "tiny.pt")
    return folder / "tiny.toml"
