"""The commands on the bundled and on the real checkpoint, as the README shows them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from deploykit.images.preprocess import read_image
from deploykit.models.sinet import SINet


def test_export_run_and_the_python_call_agree(deploykit, sinet_onnx, here):
    import deploykit as package
    from deploykit.images.synthetic import synthesize
    from deploykit.report.picture import write_image

    (artifact,) = json.loads(sinet_onnx.out)["body"]["artifacts"]
    assert Path(artifact["path"]).is_relative_to(sinet_onnx.folder)
    portrait = synthesize(9_000_002, 320)
    write_image(here / "photo.png", portrait.image)
    ran = deploykit("run", artifact["path"], "--input", "photo.png", "--output", "mask.png", "--cut-out", "three.png")
    assert ran.code == 0, ran.err
    mask = read_image(here / "mask.png")[:, :, 0] > 0
    overlap = (mask & (portrait.mask > 0)).sum() / (mask | (portrait.mask > 0)).sum()
    assert overlap > 0.9
    assert read_image(here / "three.png").shape[1] > 3 * 320
    logits = package.run(artifact["path"], image=portrait.image)["logits"]
    assert logits.shape == (1, 2, 128, 128)


def test_export_takes_the_project_file_first(deploykit, here):
    (here / "deploykit.toml").write_text('recipe = "nosuch"\n')
    assert "nosuch" in deploykit("export", "--target", "onnx").err
    (here / "deploykit.toml").write_text('recipe = "sinet"\nsurprise = 1\n')
    error = deploykit("export", "--target", "onnx").err
    assert "surprise" in error
    assert "deploykit.toml" in error


def test_a_checkpoint_without_a_recipe_is_recognised_or_refused(deploykit, here):
    torch.save({"state_dict": SINet().state_dict()}, here / "mine.pth.tar")
    result = deploykit("init", "mine.pth.tar")
    assert result.code == 0, result.err
    assert "sinet" in result.err
    text = (here / "recipe.toml").read_text()
    assert 'path = "mine.pth.tar"' in text
    again = deploykit("init", "mine.pth.tar")
    assert again.code == 2
    assert "exists already" in again.err
    torch.save({"layer.weight": torch.zeros(3, 3)}, here / "other.pth")
    refused = deploykit("export", "--checkpoint", "other.pth")
    assert refused.code == 2
    assert "belongs to no network" in refused.err
    assert deploykit("init", "other.pth", "-o", "new.toml").code == 2
    assert not (here / "new.toml").exists()


@pytest.mark.parametrize(
    ("recipe", "folded"), [("small/small.toml", 4), pytest.param("sinet", 38, marks=pytest.mark.full)]
)
@pytest.mark.usefixtures("small")
def test_verify_reparam_passes_and_counts_what_was_folded(deploykit, recipe, folded):
    result = deploykit("verify-reparam", recipe, "--json")
    assert result.code == 0
    (record,) = json.loads(result.out)["body"]
    assert record["passed"] is True
    assert sum(stage["folded"] for stage in record["stages"]) == folded


def test_an_unexpected_count_fails_with_exit_code_1(deploykit, small):
    small.write_text(small.read_text().replace("fold_batch_norm = 4", "fold_batch_norm = 5"))
    result = deploykit("verify-reparam", "small/small.toml")
    assert result.code == 1
    assert "fold_batch_norm fired 4 times, the recipe expects 5" in result.out
    refused = deploykit("export", "small/small.toml", "--target", "onnx", "-o", "out")
    assert refused.code == 1
    assert "fold_batch_norm fired 4 times, the recipe expects 5" in refused.err
    assert not Path("out").exists()


def test_a_nan_in_the_weights_is_refused_with_its_name(deploykit, here):
    state = SINet().state_dict()
    state["encoder.level1.bn.weight"][3] = np.nan
    torch.save(state, here / "nan.pth")
    result = deploykit("verify-reparam", "sinet", "--checkpoint", "nan.pth")
    assert result.code == 1
    assert "encoder.level1.bn.weight" in result.err


def test_a_failed_comparison_leaves_nothing_behind_and_exits_1(deploykit, small):
    small.write_text(small.read_text().replace("max_abs_error = 2e-4", "max_abs_error = 1e-12"))
    result = deploykit("export", "small/small.toml", "--target", "onnx", "-o", "out")
    assert result.code == 1
    assert "max absolute error" in result.err
    assert [item for item in Path("out").rglob("*") if item.is_file()] == []


@pytest.fixture
def only_onnx(monkeypatch):
    from dataclasses import replace

    from deploykit.targets.table import TARGETS
    from deploykit.vocab import Target

    for target in (Target.COREML, Target.TFLITE, Target.COREAI):
        row = replace(TARGETS[target], packages={"a_module_that_is_not_there": f"{target}-converter"})
        monkeypatch.setitem(TARGETS, target, row)


@pytest.mark.usefixtures("only_onnx")
def test_all_means_every_installed_target_and_lists_the_others(deploykit, small):
    result = deploykit("export", "small/small.toml", "--target", "all", "--json")
    assert result.code == 0, result.err
    body = json.loads(result.out)["body"]
    assert [one["plan"]["target"] for one in body["artifacts"]] == ["onnx"]
    assert {one["target"]: one["reason"] for one in body["skipped"]} == {
        "coreml": "not installed: coreml-converter; pip install 'deploykit[coreml]'",
        "tflite": "not installed: tflite-converter; pip install 'deploykit[tflite]'",
        "coreai": "not installed: coreai-converter; pip install 'deploykit[coreai]'",
    }


@pytest.mark.usefixtures("only_onnx")
def test_a_target_asked_for_by_name_must_be_installed(deploykit, here):
    result = deploykit("export", "sinet", "--target", "coreml")
    assert result.code == 2
    assert "pip install 'deploykit[coreml]'" in result.err


@pytest.mark.full
@pytest.mark.parametrize(("recipe", "injected"), [("rcrnet", 348), ("sinet", 152)])
def test_the_self_test_catches_every_damage_to_a_bundled_network(deploykit, recipe, injected):
    result = deploykit("verify-reparam", recipe, "--self-test")
    assert result.code == 0
    assert f"self-test: {injected} caught / {injected} injected" in result.out


@pytest.mark.full
def test_bench_without_anything_exported_measures_the_default_recipe(deploykit, here):
    result = deploykit("bench", "--json", "--runs", "5", "--seconds", "0.1", "--precision-target", "none")
    assert result.code == 0, result.err
    names = [row["artifact"] for row in json.loads(result.out)["body"]["measured"]]
    assert names == ["PyTorch eager", "sinet.onnx", "sinet.tflite"]
    assert list(here.iterdir()) == []


def test_run_refuses_what_it_would_destroy_or_cannot_trust(deploykit, small_onnx, here):
    from deploykit.images.synthetic import synthesize
    from deploykit.report.picture import write_image

    shutil.copytree(small_onnx, here / "out")
    write_image(here / "photo.png", synthesize(1).image)
    before = (here / "photo.png").read_bytes()
    same = deploykit("run", "out/small.onnx", "--input", "photo.png", "--output", "photo.png")
    assert same.code == 2
    assert "written over" in same.err
    assert (here / "photo.png").read_bytes() == before
    with (here / "out" / "small.onnx").open("ab") as stream:
        stream.write(b"x")
    changed = deploykit("run", "out/small.onnx", "--input", "photo.png")
    assert changed.code == 2
    assert "not the one that its manifest describes" in changed.err
    assert not (here / "mask.png").exists()


@pytest.fixture
def lightning(here):
    state = {f"model.{name}": value for name, value in SINet().state_dict().items()}
    torch.save({"state_dict": state, "pytorch-lightning_version": "2.4.0", "epoch": 3}, here / "light.ckpt")


@pytest.mark.usefixtures("lightning")
def test_a_lightning_checkpoint_is_recognised(deploykit):
    result = deploykit("init", "light.ckpt")
    assert result.code == 0, result.err
    assert "sinet" in result.err


@pytest.mark.full
@pytest.mark.usefixtures("lightning")
def test_a_lightning_checkpoint_is_fitted_without_its_holder(deploykit):
    assert "stripped prefix 'model.'" in deploykit("verify-reparam", "--checkpoint", "light.ckpt").err


def test_an_output_folder_that_is_a_file_is_one_error_at_once(deploykit, here):
    (here / "afile").write_text("")
    result = deploykit("export", "sinet", "-o", "afile")
    assert result.code == 2
    assert result.err.count("cannot be written") == 1
    assert result.out == ""
