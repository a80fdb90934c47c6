"""One folder of artifacts and records for all tests here; each test works on a copy."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from report_cases import write_folder

RECIPE_FILES = ("chain.toml", "chain_network.py", "chain.pt")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder as it was written; read it in place."""
    return write_folder(tmp_path_factory.mktemp("report"))


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of it, with the recipe beside it."""
    shutil.copytree(written, tmp_path / "artifacts")
    for name in RECIPE_FILES:
        shutil.copy(written.parent / name, tmp_path / name)
    return tmp_path / "artifacts"
