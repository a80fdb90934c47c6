"""``export --dry-run``: what each target makes of a network, said without converting or writing anything."""

from __future__ import annotations

import json

import pytest
import torch

from deploykit.network import build_network
from deploykit.recipe import load_recipe
from deploykit.targets.table import part
from deploykit.vocab import Target

NETWORK = """
import torch
import torch.nn.functional as F
from torch import nn


class Mine(nn.Module):
    def __init__(self, reflect):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.PReLU(8))
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.flow = nn.Conv2d(8, 2, 1)
        self.pool = nn.AdaptiveAvgPool2d((5, 7))
        self.padding = "reflection" if reflect else "zeros"

    def forward(self, x):
        y = self.wide(self.stem(x))
        y = F.grid_sample(y, torch.tanh(self.flow(y).permute(0, 2, 3, 1)), "bilinear", self.padding, True)
        return self.pool(y)
"""
RECIPE = """
format_version = 1
name = "mine"
description = "a network of this test"
license = "Apache-2.0"
source = "this test"

[network]
factory = "dry_run_network:Mine"
arguments = {{ reflect = {reflect} }}

[[inputs]]
name = "photo"
shape = [1, 3, 24, 32]
mean = [127.5]
scale = [0.0078125]
source = "this test"

[[outputs]]
name = "map"
meaning = "features"

[checkpoint]
path = "mine.pt"

[expected]
fold_batch_norm = {folds}

[tolerances.fp32]
relative_l2 = 1e-5
reason = "a few layers"
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Return a function that writes the recipe of the network, and forbids every converter to write."""
    (tmp_path / "dry_run_network.py").write_text(NETWORK)

    def written(*, reflect: bool, folds: int = 1) -> str:
        path = tmp_path / "mine.toml"
        path.write_text(RECIPE.format(reflect=str(reflect).lower(), folds=folds))
        torch.save(build_network(load_recipe(path)).state_dict(), tmp_path / "mine.pt")
        return str(path)

    def forbidden(*arguments: object) -> None:
        raise AssertionError("a dry run converts nothing")

    for target in Target:
        monkeypatch.setattr(part(target, "export"), "write", forbidden)
    monkeypatch.chdir(tmp_path)
    return written


def files(folder) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def by_verdict(target: dict) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for one in target["findings"]:
        found.setdefault(one["verdict"], []).append(one)
    return found


def test_what_is_refused_is_said_with_its_module_and_nothing_is_written(deploykit, recipe, tmp_path):
    path = recipe(reflect=True)
    before = files(tmp_path)
    result = deploykit("export", path, "--dry-run", "--target", "onnx,tflite", "--json")
    assert result.code == 1, result.err
    record = json.loads(result.out)
    assert record["kind"] == "preflight"
    body = record["body"]
    assert body["passed"] is False
    folded = body["simplified"][0]
    assert (folded["construct"], folded["verdict"], folded["places"]) == ("fold batch norm", "rewritten", 1)
    onnx, tflite = (by_verdict(one) for one in body["targets"])
    assert "refused" not in onnx
    done = {one["done"].split(":")[0]: one["modules"] for one in onnx["rewritten"]}
    # Slopes that nobody trained are equal.
    assert done.keys() == {"pass adaptive_pooling", "pass prelu_as_leaky_relu"}
    assert done["pass prelu_as_leaky_relu"] == ["stem.2"]
    (refused,) = tflite["refused"]
    assert "grid_sample" in refused["construct"]
    assert "refused" in refused["done"]
    assert {"conv2d", "leaky_relu"} <= {one["construct"] for one in tflite["ok"]}
    assert files(tmp_path) == before


def test_a_network_that_every_target_takes_passes_with_advice(deploykit, recipe, tmp_path):
    path = recipe(reflect=False)
    before = files(tmp_path)
    result = deploykit("export", path, "--dry-run", "--target", "coreml,tflite", "--precision", "fp16")
    assert result.code == 0, result.err
    for text in ("grid_sample", "dilated conv", "adaptive_pooling", "advisory"):
        assert text in result.out, text
    assert "nothing stands in the way" in result.out
    assert "Xcode" in result.err
    assert files(tmp_path) == before


def test_a_recipe_that_expects_otherwise_fails_as_an_export_would(deploykit, recipe):
    result = deploykit("export", recipe(reflect=False, folds=2), "--dry-run", "--target", "onnx")
    assert result.code == 1
    assert "did not simplify as its recipe expects" in result.err


def test_what_a_target_does_not_take_is_the_user_s_to_mend(deploykit, recipe):
    result = deploykit("export", recipe(reflect=False), "--dry-run", "--target", "onnx", "--layout", "nhwc")
    assert result.code == 2
    assert "--layout" in result.err
