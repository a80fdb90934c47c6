"""Core AI assets, run from disk by Apple's runtime in a process of its own; damaged ones end that process alone."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from coreai_cases import write_asset
from torch import nn

from deploykit import api
from deploykit.errors import ArtifactError, TargetError
from deploykit.targets.coreai.client import Child
from deploykit.targets.coreai.program import program_from_json
from deploykit.targets.coreai.runtime import open_artifact
from deploykit.targets.table import TARGETS
from deploykit.vocab import Target

FULL = pytest.mark.full
SHAPE = (1, 3, 12, 16)
BYTECODE, HASH, METADATA = "main.mlirb", "main.hash", "metadata.json"


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.PReLU(8), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 1)
    layers[2].running_mean.normal_()
    layers[2].running_var.uniform_(0.5, 2.0)
    return nn.Sequential(*layers, nn.Upsample(scale_factor=2, mode="bilinear")).eval()


@pytest.fixture(scope="module")
def asset(tmp_path_factory) -> Path:
    return write_asset(network(), tmp_path_factory.mktemp("coreai") / "small.aimodel", *SHAPE)


@pytest.fixture
def copy(asset, tmp_path) -> Path:
    return shutil.copytree(asset, tmp_path / "copy.aimodel")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def truth(image) -> np.ndarray:
    with torch.no_grad():
        return network()(torch.from_numpy(image)).numpy()


def rehash(asset: Path) -> None:
    """Let the hash of ``asset`` agree with its program, as somebody would who means harm."""
    (asset / HASH).write_bytes(hashlib.sha256((asset / BYTECODE).read_bytes()).digest())


def test_the_runtime_says_what_the_asset_takes_and_gives(asset, image, truth):
    with open_artifact(asset) as runtime:
        assert "coreai-core" in runtime.name
        assert [(one.name, one.shape, one.dtype) for one in runtime.inputs] == [("image", SHAPE, "float32")]
        assert [(one.name, one.shape, one.dtype) for one in runtime.outputs] == [("scores", (1, 2, 24, 32), "float32")]
        first, second = (runtime.run({"image": image})["scores"] for _ in range(2))
        assert np.array_equal(first, second)
        assert np.abs(first - truth).max() < 1e-5
        assert np.abs(runtime.run({"image": image[:, ::-1]})["scores"] - truth).max() > 1e-2
        for wrong in ({}, {"photo": image}, {"image": image[:, :2]}, {"image": image.astype(np.float64)}):
            with pytest.raises(ArtifactError):
                runtime.run(wrong)
        # The caller may write to what it got.
        runtime.run({"image": image})["scores"][:] = 0


def test_it_runs_where_an_event_loop_runs_already(asset, image, truth):
    async def cell() -> np.ndarray:
        return api.run(asset, {"image": image})["scores"]

    assert np.abs(asyncio.run(cell()) - truth).max() < 1e-5


def test_no_process_and_no_file_outlives_the_runtime(asset, image, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    runtime = open_artifact(asset)
    runtime.run({"image": image})
    child = psutil.Process(runtime._child._process.pid)
    assert list(tmp_path.iterdir())
    del runtime
    gc.collect()
    assert not child.is_running()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_dies_meanwhile_is_an_error(asset, image):
    with open_artifact(asset) as runtime:
        psutil.Process(runtime._child._process.pid).kill()
        with pytest.raises(ArtifactError, match="SIGKILL"):
            runtime.run({"image": image})


def empty(asset: Path) -> None:
    for item in asset.iterdir():
        item.unlink()


def truncate(asset: Path) -> None:
    path = asset / BYTECODE
    path.write_bytes(path.read_bytes()[:-100])


def flip(asset: Path) -> None:
    raw = bytearray((asset / BYTECODE).read_bytes())
    raw[len(raw) // 2] ^= 1
    (asset / BYTECODE).write_bytes(raw)


def to_another_format(asset: Path) -> None:
    (asset / BYTECODE).write_bytes(b"\x08\x07\x12\x07pytorch")
    rehash(asset)


def to_a_file(asset: Path) -> None:
    shutil.rmtree(asset)
    asset.write_bytes(b"\x08\x07\x12\x07pytorch")


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (empty, "no main.mlirb"),
        (truncate, "differs from main.hash"),
        (flip, "differs from main.hash"),
        (to_another_format, "is no program"),
        (to_a_file, "a file"),
        (shutil.rmtree, "nothing"),
    ],
)
def test_a_damaged_asset_is_refused_before_anything_is_loaded(copy, damage: Callable[[Path], None], found, monkeypatch):
    damage(copy)
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(ArtifactError, match="cannot be read") as caught:
        open_artifact(copy)
    assert found in (caught.value.found or "")


def test_damage_that_its_own_hash_agrees_with_ends_another_process(copy):
    truncate(copy)
    rehash(copy)
    others = psutil.Process().children()
    with pytest.raises(ArtifactError, match="Core AI's compiler stopped with SIGABRT: "):
        open_artifact(copy)
    assert set(psutil.Process().children()) <= set(others)


def test_a_description_that_is_no_json_is_an_error(copy):
    (copy / METADATA).write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        open_artifact(copy)


@FULL
def test_flipped_bits_never_end_this_process(copy, asset):
    outcomes = set()
    for seed in range(20):
        place = random.Random(seed)
        raw = bytearray((asset / BYTECODE).read_bytes())
        raw[place.randrange(len(raw))] ^= 1 << place.randrange(8)
        (copy / BYTECODE).write_bytes(raw)
        rehash(copy)
        try:
            with open_artifact(copy) as runtime:
                runtime.run({one.name: np.zeros(one.shape, one.dtype) for one in runtime.inputs})
            outcomes.add("ran")
        except ArtifactError:
            outcomes.add("refused")
    assert outcomes == {"ran", "refused"}


def test_without_the_packages_the_command_is_named(asset, monkeypatch):
    row = TARGETS[Target.COREAI]
    monkeypatch.setitem(TARGETS, Target.COREAI, type(row)(**{**vars(row), "packages": {"not_there": "coreai-core"}}))
    with pytest.raises(TargetError, match="coreai-core") as caught:
        open_artifact(asset)
    assert caught.value.next_step == "pip install 'deploykit[coreai]'"


def test_every_value_can_be_made_an_output(asset, image, truth, tmp_path):
    exposed = tmp_path / "exposed.aimodel"
    with Child(asset) as child:
        names = child.ask("expose", to=str(exposed))[0]["names"]
        program = program_from_json(child.ask("describe", path=str(exposed))[0])
    with open_artifact(exposed) as runtime:
        found = runtime.run({"image": image})
    assert set(found) == {*names, "scores"}
    assert np.abs(found["scores"] - truth).max() < 1e-5
    with torch.no_grad():
        inner = network()[:1](torch.from_numpy(image)).numpy()
    made = {one.origin: one.results[0].name for one in program.operations if one.origin}
    assert list(made) == [
        *("conv2d", "gt_scalar", "where_self", "mul_tensor", "batch_norm_default", "conv2d_1", "upsample_bilinear2d"),
    ]
    outside = next(name for name, value in program.outputs.items() if value == made["conv2d"])
    assert np.abs(found[outside] - inner).max() < 1e-5


def test_the_process_of_an_asset_starts_without_what_only_the_export_needs():
    """Each file opened starts one: with PyTorch it would take five times as long."""
    said = "import sys, deploykit.targets.coreai.child; print(*{'torch', 'pydantic', 'coreai'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["coreai"]
