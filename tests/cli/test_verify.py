"""``deploykit verify`` as a user sees it, with what users get wrong."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
from onnx import load, numpy_helper, save

from deploykit import api
from deploykit.artifact import read_artifact
from deploykit.images.synthetic import synthesize
from deploykit.report.picture import write_image


@pytest.fixture(scope="module")
def sinet(sinet_onnx):
    (manifest,) = sinet_onnx.folder.rglob("manifest.json")
    return read_artifact(manifest)


@pytest.fixture
def broken(small_onnx, here):
    """The file of the small network, one of its weights changed, with its manifest."""
    shutil.copytree(small_onnx, here / "broken")
    model = load(str(here / "broken" / "small.onnx"))
    weight = max(model.graph.initializer, key=lambda item: np.prod(item.dims))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(1.5), weight.name))
    save(model, str(here / "broken" / "small.onnx"))
    return here / "broken"


def test_a_good_file_in_tables_and_as_json(deploykit, sinet, here):
    write_image(here / "photos" / "ann.png", synthesize(5_000_000, 128).image)
    shown = deploykit("verify", sinet.path, "--images", "photos")
    assert shown.code == 0, shown.err
    for text in (
        "max absolute error",
        "mIoU with the true masks",
        "worst value at",
        "preprocessing: agrees",
        "ann.png",
    ):
        assert text in shown.out
    assert "equivalent within tolerance" in shown.out
    assert "next: deploykit evaluate" in shown.out
    assert "running the file" in shown.err
    assert "running the file" not in shown.out
    result = deploykit("verify", sinet.path.parent, "--json")
    assert result.code == 0, result.err
    record = json.loads(result.out)
    assert (record["deploykit"], record["kind"]) == (1, "verify")
    body = record["body"]
    assert body["passed"] is True
    assert body["probe"]["verdict"] == "agrees"
    assert body["runtimes"][0]["outputs"][0]["comparison"]["failures"] == []


def test_a_changed_file_fails_with_exit_code_1_and_is_named(deploykit, broken, small_recipe):
    shown = deploykit("verify", "broken", "--recipe", small_recipe)
    assert shown.code == 1, shown.err
    assert "small.onnx: FAILED" in shown.out
    assert "changed, missing or added since the manifest: small.onnx" in shown.out
    assert "max absolute error" in shown.out
    assert "next: " in shown.out


def test_a_bare_file_and_its_checkpoint_alone(deploykit, sinet, here):
    shutil.copy(sinet.path, here / "bare.onnx")
    refused = deploykit("verify", "bare.onnx")
    assert refused.code == 2
    assert "--recipe" in refused.err
    weights = api.load("sinet").checkpoint_path
    shown = deploykit("verify", "bare.onnx", "--checkpoint", weights)
    assert shown.code == 0, shown.out + shown.err
    assert "recipe sinet" in shown.out
    assert "another size than the recipe" in shown.out


def test_two_files(deploykit, small_onnx, broken, small_recipe):
    whole = small_onnx / "small.onnx"
    result = deploykit("verify", "broken/small.onnx", "--against", whole, "--recipe", small_recipe, "--json")
    assert result.code == 1, result.err
    body = json.loads(result.out)["body"]
    assert body["passed"] is False
    assert body["changed"] == ["small.onnx"]
    assert body["reference"]["kind"] == "file"
    assert body["findings"]
    refused = deploykit("verify", "broken", "--against", whole, "--recipe", small_recipe, "--layers")
    assert refused.code == 2
    assert "--layers" in refused.err


def test_what_users_get_wrong_is_said_with_exit_code_2(deploykit, sinet, here):
    (here / "empty").mkdir()
    (here / "photos").mkdir()
    (here / "photos" / "broken.png").write_bytes(b"no image")
    (here / "text.onnx").write_text("hello")
    (here / "folder.onnx").mkdir()
    (here / "text.tflite").write_text("hello")
    (here / "notes.txt").write_text("hello")
    write_image(here / "mask.png", np.zeros((4, 4, 3), np.uint8))
    other = api.load("elb").checkpoint_path
    file = str(sinet.path)
    several = here / "several"
    for name in ("a", "b"):
        shutil.copytree(sinet.path.parent, several / name)
    cases = [
        (("missing.onnx",), "There is no such file"),
        (("empty",), "no artifact in the folder"),
        (("several",), "several artifacts"),
        (("notes.txt",), "not one of the formats"),
        (("text.onnx", "--recipe", "sinet"), "text.onnx"),
        (("text.tflite", "--recipe", "sinet"), "text.tflite"),
        (("folder.onnx", "--recipe", "sinet"), "folder.onnx"),
        ((file, "--recipe", "nothing"), "no such recipe"),
        ((file, "--recipe", "rcrnet-video"), "does not take what the recipe gives"),
        ((file, "--checkpoint", "missing.pt"), "missing.pt"),
        ((file, "--checkpoint", "mask.png"), "not the one that the file was made from"),
        ((file, "--checkpoint", other), "not the one that the file was made from"),
        ((file, "--against", other), "does not fit"),
        ((file, "--against", "missing.pt"), "missing.pt"),
        ((file, "--against", "mask.png"), "mask.png"),
        ((file, "--against", "empty"), "no artifact in the folder"),
        ((file, "--images", "empty"), "holds no images"),
        ((file, "--images", "missing"), "cannot be read"),
        ((file, "--images", "photos"), "cannot be decoded"),
        ((file, "--input-name", "image"), "RECIPE=FILE"),
        ((file, "--input-name", "image=nothing"), "no such name"),
        ((file, "--output-name", "nothing=logits"), "no such name"),
        ((file, "--precision", "fp12"), "fp12"),
        ((file, "--threads", "0"), "--threads"),
        ((), "nothing to verify"),
        (("--certificate", "notes.txt", "--manifest", file), "one at a time"),
        (("--certificate", "missing.json"), "missing.json"),
        (("--manifest", "missing.json"), "missing.json"),
        (("--manifest", file, "--layers", "--images", "photos"), "--images, --layers"),
        (("--certificate", "missing.json", "--against", file), "--against"),
        (("--manifest", file, "--threads", "2"), "--threads"),
    ]
    for arguments, text in cases:
        result = deploykit("verify", *arguments)
        assert result.code == 2, (arguments, result)
        assert text in result.err, (arguments, result.err)
        assert "Traceback" not in result.err
        assert result.out == "", arguments


def test_a_photo_that_decodes_is_compared(deploykit, sinet, here):
    (here / "photos").mkdir()
    cv2.imwrite(str(here / "photos" / "grey.png"), np.full((40, 30), 90, np.uint8))
    result = deploykit("verify", sinet.path, "--images", "photos", "--json")
    assert result.code == 0, result.err
    assert "grey.png" in json.loads(result.out)["body"]["samples"]
