"""One chain on disk for all tests of this folder; tests that change it copy it first."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_cases import write_chain

from deploykit import api
from deploykit.artifact import read_artifact
from deploykit.benchmark import bench
from deploykit.provenance.measurements import keep_measurements
from deploykit.vocab import Target


@dataclass(frozen=True)
class Chain:
    recipe: Path
    folder: Path


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[Target, Chain]:
    """The exported folders by target; the ONNX file was measured, and its measurement kept."""
    folder = tmp_path_factory.mktemp("chain")
    recipe = write_chain(folder)
    artifacts = api.export(recipe, targets=[Target.ONNX, Target.COREML], output_dir=folder / "artifacts")
    onnx = artifacts[0]
    (kept,) = keep_measurements([onnx], bench([onnx.path], runs=3, seconds=0.01, precision_target=None, startup=False))
    assert read_artifact(kept.path).measurements == kept.measurements
    return {one.plan.target: Chain(recipe, one.path.parent) for one in artifacts}


@pytest.fixture
def copied(written: dict[Target, Chain], tmp_path: Path) -> Callable[..., Chain]:
    """Return a function that copies the chain of a target, without its checkpoint if asked: then checks are fast."""

    def copy(target: Target = Target.ONNX, *, checkpoint: bool = True) -> Chain:
        source = written[target]
        place = tmp_path / target.value
        shutil.copytree(source.folder, place / source.folder.name)
        for name in ("chain.toml", "chain_network.py", *(["chain.pt"] if checkpoint else [])):
            shutil.copy(source.recipe.parent / name, place / name)
        return Chain(place / "chain.toml", place / source.folder.name)

    return copy
