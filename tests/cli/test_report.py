"""``deploykit report``: codes, the record, and what goes where."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def artifacts(small_onnx, here):
    shutil.copytree(small_onnx, here / "artifacts" / "small" / small_onnx.name)
    return here / "artifacts"


def test_a_file_alone_is_open_and_what_is_missing_is_said(deploykit, artifacts, here):
    (artifacts / "strange.json").write_text("{", "utf-8")
    found = deploykit("report", "artifacts", "--no-pictures", "--markdown", "note.md")
    assert found.code == 0
    assert found.out.splitlines()[0].startswith("Open: nothing failed in 1 file")
    assert found.out.splitlines()[1:] == ["report.html", "note.md"]
    assert "unreadable: strange.json" in found.err
    text = (here / "report.html").read_text("utf-8")
    for kind in ("verify-reparam", "evaluate", "bench", "gate"):
        assert f"deploykit {kind}" in text
    assert "strange.json" in text


def test_the_record_says_what_the_page_says(deploykit, artifacts):
    found = deploykit("report", "artifacts", "-o", "r.html", "--no-pictures", "--json")
    record = json.loads(found.out)
    assert (record["deploykit"], record["kind"]) == (1, "report")
    assert record["body"]["standing"] == "open"
    assert record["body"]["artifacts"] == 1
    assert record["body"]["path"] == "r.html"


def test_a_changed_file_is_written_about_and_ends_with_1(deploykit, artifacts, here):
    (model,) = artifacts.glob("*/*/small.onnx")
    model.write_bytes(model.read_bytes() + b"x")
    found = deploykit("report", "artifacts", "--no-pictures")
    assert found.code == 1
    assert found.out.startswith("Not ready:")
    assert (here / "report.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "The folder cannot be read."),
        (["."], "There is no artifact in the folder."),
        (["artifacts", "-o", "no/such/folder.html"], "The report cannot be written."),
        (["artifacts", "--recipe", "no-such"], "There is no such recipe."),
        (["artifacts", "--images", "nowhere"], "The images cannot be read."),
    ],
)
def test_mistakes_of_the_user_end_with_2_and_no_traceback(deploykit, artifacts, here, arguments, words):
    if arguments == ["."]:
        shutil.rmtree(artifacts)
    found = deploykit("report", *arguments)
    assert found.code == 2
    assert words in found.err
    assert "Traceback" not in found.err
    assert not (here / "report.html").exists()


def test_the_recipe_of_the_project_is_found_and_another_one_is_named(deploykit, artifacts, here):
    without = deploykit("report", "artifacts")
    assert "name its file with --recipe small.toml" in without.err
    assert "--recipe small.toml" in (here / "report.html").read_text("utf-8")
    (here / "deploykit.toml").write_text('recipe = "missing.toml"\n', "utf-8")
    found = deploykit("report", "artifacts", "--no-pictures")
    assert found.code == 2
    assert "missing.toml" in found.err
