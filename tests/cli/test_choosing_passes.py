"""Choosing passes on the command line, what each of them did, and two files side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploykit.artifact import find_artifacts, read_artifact


def _figures(body):
    return {row["name"]: row for row in body["figures"]}


@pytest.fixture
def written(deploykit, small, here):
    """Return a function that exports the small network to ONNX and returns what was printed as JSON."""

    def export(*options: str):
        result = deploykit("export", small, "--target", "onnx", "-o", here / "files", "--json", *options)
        assert result.code == 0, result.err
        return json.loads(result.out)["body"]

    return export


def test_off_keeps_what_the_converter_needs_and_the_difference_shows_it(deploykit, written, small_onnx):
    whole, plain = read_artifact(small_onnx), read_artifact(Path(written("--optimize", "off")["artifacts"][0]["path"]))
    passes = [set(one.plan.passes) for one in (whole, plain)]
    assert {"fold_batch_norm", "move_affine", "absorb_permutations"} <= passes[0]
    assert passes[1].isdisjoint({"fold_batch_norm", "merge_branches", "move_affine"})
    assert "adaptive_pooling" in passes[1]
    paths = [one.path for one in (plain, whole)]
    found = json.loads(deploykit("inspect", "--diff", *paths, "--json").out)["body"]
    rows = _figures(found)
    # Merged branches; the number of operations may stay, since a fast form of an activation can have more of them.
    assert rows["macs"]["first"] > rows["macs"]["second"]
    assert not found["same"]
    assert json.loads(deploykit("inspect", "--diff", paths[0], paths[0], "--json").out)["body"]["same"]
    shown = deploykit("inspect", "--diff", *paths).out
    assert "Figures and operations" in shown
    assert "B - A" in shown


def test_a_pass_is_skipped_by_its_exact_name(written):
    skipped = written("--skip-pass", "move_affine,commute_resize")["artifacts"][0]["plan"]["passes"]
    assert "move_affine" not in skipped
    assert "commute_resize" not in skipped
    assert "fold_batch_norm" in skipped


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--skip-pass", "fold_batchnorm"), "fold_batchnorm"),
        (("--passes", "fold_batch_norm,"), "an empty name"),
        (("--optimize", "off", "--skip-pass", "move_affine"), "--optimize off"),
    ],
)
def test_what_cannot_be_chosen_is_one_error(deploykit, small, here, options, said):
    result = deploykit("export", small, "--target", "onnx", "-o", here / "files", *options)
    assert result.code == 2
    assert said in result.err
    assert not (here / "files").exists() or not list((here / "files").rglob("*.onnx"))


def test_explain_shows_every_chosen_pass_with_its_figures(deploykit, small, here, written):
    effects = {one["name"]: one for one in written("--explain")["explained"][0]["passes"]}
    folded = effects["fold_batch_norm"]
    assert folded["fired"] == sum(folded["did"].values()) > 0
    assert folded["after"]["operations"] < folded["before"]["operations"]
    merged = effects["merge_branches"]
    assert merged["after"]["macs"] < merged["before"]["macs"]
    alone = ("--passes", "fold_batch_norm", "-o", here / "alone")
    result = deploykit("export", small, "--target", "onnx", *alone, "--explain")
    assert "Passes for onnx" in result.out
    assert "→" in result.out
    (artifact,) = find_artifacts(here / "alone")
    assert "fold_batch_norm" in artifact.plan.passes
    assert "merge_branches" not in artifact.plan.passes


def test_two_files_are_compared_only_with_the_option(deploykit, small_onnx):
    file = small_onnx / "small.onnx"
    assert deploykit("inspect", "--diff", file).code == 2
    result = deploykit("inspect", file, file)
    assert result.code == 2
    assert "--diff A B" in result.err
