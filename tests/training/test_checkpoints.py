from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from deploykit.evaluation.dataset import HELD_OUT_SEEDS
from deploykit.images.synthetic import GENERATOR_VERSION, synthesize
from deploykit.network import build_network
from deploykit.papers.figures import load_papers
from deploykit.recipe import load_recipe
from deploykit.training.manifest import read_manifest
from deploykit.training.plan import PLANS, TRAIN_SEEDS
from deploykit.training.score import score

FOLDER = Path(__file__).resolve().parents[2] / "checkpoints"
# So much may the mean over the first eight held-out portraits lie below that over all, which the manifest states.
LESS_ON_A_FEW = 0.03
LEAST_STATED = 0.95

# What a paper calls mean IoU: the mean over images of the portrait's (PortraitNet, equation 10), or over both classes.
STATED_AS = {"portrait": "held_out_foreground_iou", "two-class": "held_out_two_class_miou"}
MIOU = {paper.network: STATED_AS[paper.miou] for paper in load_papers()}

each_network = pytest.mark.parametrize("name", sorted(PLANS))


@functools.cache
def drawn(size: int) -> np.ndarray:
    found = [synthesize(seed, size) for seed in HELD_OUT_SEEDS[:8]]
    return np.stack([np.dstack([portrait.image, portrait.mask]) for portrait in found])


def least_on_a_few(name: str) -> float:
    stated: float = read_manifest(FOLDER / "manifest.toml")[f"{name}.pt"]["held_out_foreground_iou"]
    return stated - LESS_ON_A_FEW


def load(name: str) -> nn.Module:
    network = build_network(PLANS[name].loaded)
    network.load_state_dict(torch.load(FOLDER / f"{name}.pt", map_location="cpu", weights_only=True))
    return network


@each_network
def test_the_manifest_describes_the_file_that_is_there(name: str) -> None:
    entry = read_manifest(FOLDER / "manifest.toml")[f"{name}.pt"]
    assert entry["sha256"] == hashlib.sha256((FOLDER / f"{name}.pt").read_bytes()).hexdigest()
    section = load_recipe(name).file.checkpoint
    assert section is not None
    assert entry["sha256"] == section.sha256
    assert entry["generator_version"] == GENERATOR_VERSION
    assert entry["train_seeds"] == [TRAIN_SEEDS[0], TRAIN_SEEDS[-1]]
    assert entry["held_out_seeds"] == [HELD_OUT_SEEDS[0], HELD_OUT_SEEDS[-1]]
    assert entry["seed"] == PLANS[name].seed
    assert entry["loss"] == repr(PLANS[name].objective)
    assert entry["input_size"] == [PLANS[name].image.height, PLANS[name].image.width]
    assert entry[MIOU[load_recipe(name).file.network.factory]] >= LEAST_STATED
    assert entry["photo_ious"].keys() == {"astronaut", "tfjs_portrait"}


@each_network
def test_a_checkpoint_holds_plain_finite_float32_tensors(name: str) -> None:
    state = torch.load(FOLDER / f"{name}.pt", map_location="cpu", weights_only=True)
    assert state.keys() == build_network(PLANS[name].loaded).state_dict().keys()
    for key, value in state.items():
        assert value.dtype == (torch.int64 if key.endswith("num_batches_tracked") else torch.float32)
        assert torch.isfinite(value).all()


@each_network
def test_held_out_portraits_are_cut_out_well(name: str) -> None:
    plan = PLANS[name]
    assert score(load(name), plan, drawn(plan.image.height)).foreground_iou >= least_on_a_few(name)


@pytest.mark.parametrize(
    "name", [name if name == "sinet" else pytest.param(name, marks=pytest.mark.full) for name in sorted(PLANS)]
)
def test_a_damaged_checkpoint_cuts_out_badly(name: str) -> None:
    plan, network = PLANS[name], load(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    assert score(network, plan, drawn(plan.image.height)).foreground_iou < least_on_a_few(name)


def test_all_checkpoints_together_stay_small() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.pt")) < 25_000_000


def test_every_bundled_checkpoint_has_a_plan_and_a_manifest_entry() -> None:
    files = {path.name for path in FOLDER.glob("*.pt")}
    assert files == {f"{name}.pt" for name in PLANS} == set(read_manifest(FOLDER / "manifest.toml"))
