"""Small networks with known masks, as recipes and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_cases import write_recipe

from deploykit.api import export, load_recipe
from deploykit.records import Artifact


@pytest.fixture
def bright(tmp_path: Path) -> Path:
    """The recipe of a network for which bright pixels are the portrait."""
    return write_recipe(tmp_path / "bright")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The ONNX files of the bright network and of the video network that blinks, by name."""
    folder = tmp_path_factory.mktemp("exported")
    found = {}
    for name in ("bright", "blinking"):
        recipe = load_recipe(write_recipe(folder / name, name))
        (found[name],) = export(recipe, targets=["onnx"], output_dir=folder / "artifacts")
    return found
