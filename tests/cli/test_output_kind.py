"""``--output-kind`` from the command line: written, verified, run, evaluated, refused, and named by a variant."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from video_case import write_video_case

from deploykit import api
from deploykit.artifact import read_artifact
from deploykit.images.preprocess import preprocess
from deploykit.images.synthetic import synthesize
from deploykit.lowering import ExportOptions
from deploykit.report.picture import write_image
from deploykit.vocab import OutputKind

VARIANT = """
[[variants]]
name = "matte"
targets = ["onnx"]
output_kind = "probability"
input_kind = "image"
"""


def test_a_mask_file_runs_and_scores_like_the_scores_themselves(deploykit, small, small_onnx, here):
    written = deploykit("export", "small/small.toml", "--target", "onnx", "--output-kind", "mask", "--json")
    assert written.code == 0, written.err
    (folder,) = (here / "artifacts" / "small").iterdir()
    assert read_artifact(folder).plan.output_kind is OutputKind.MASK
    write_image(here / "photo.png", synthesize(3, 64).image)
    masks = []
    for artifact in (folder, small_onnx):
        assert deploykit("run", str(artifact), "--input", "photo.png", "--output", "mask.png").code == 0
        masks.append(cv2.imread("mask.png", cv2.IMREAD_UNCHANGED))
    assert 0 < (masks[0] > 0).mean() < 1
    assert np.array_equal(*masks)
    scored = deploykit("evaluate", str(folder), str(small_onnx), "--samples", "2", "--clips", "0", "--json")
    assert scored.code == 0, scored.err
    one, other = json.loads(scored.out)["body"]["evaluations"]
    assert one["images"] == other["images"]


def test_a_variant_names_the_kind_and_the_command_line_wins(deploykit, small, here):
    small.write_text(small.read_text("utf-8") + VARIANT, "utf-8")
    for more, kind in (((), OutputKind.PROBABILITY), (("--output-kind", "mask"), OutputKind.MASK)):
        out = here / str(kind)
        found = deploykit("export", "small/small.toml", "--variant", "matte", "-o", str(out), *more)
        assert found.code == 0, found.err
        assert read_artifact(next((out / "small").iterdir())).plan.output_kind is kind


def test_what_cannot_be_is_one_clear_error(deploykit, small):
    text = small.read_text("utf-8")
    small.write_text(text.replace('classes = ["class 0", "class 1"]\n', ""), "utf-8")
    unnamed = deploykit("export", "small/small.toml", "--target", "onnx", "--output-kind", "probability")
    assert unnamed.code == 2
    assert "nothing says which class its channels are" in unnamed.err
    assert "name the classes of this output in the recipe" in unnamed.err.replace("\n", " ")
    assert "Traceback" not in unnamed.err
    fed = deploykit("export", "rcrnet-video", "--target", "onnx", "--output-kind", "mask")
    assert fed.code == 2
    assert "cannot be fed back" in fed.err


def test_a_probability_is_fed_back_as_it_is(tmp_path):
    network = api.load(write_video_case(tmp_path / "video"))
    options = ExportOptions(output_kind=OutputKind.PROBABILITY)
    (artifact,) = api.export(network, targets=["onnx"], output_dir=tmp_path / "out", options=options)
    frames = [np.ascontiguousarray(synthesize(seed, 64).image) for seed in range(3)]
    module, spec = network.module.double(), network.recipe.file.inputs[0]
    prior = torch.full((1, 1, 32, 48), 0.25).double()
    for frame, outputs in zip(frames, api.run_sequence(artifact, frames), strict=True):
        with torch.no_grad():
            scores, _ = module(torch.from_numpy(preprocess(frame, spec)).double(), prior)
        expected = torch.softmax(scores, 1)
        prior = expected[:, 1:2]
        assert np.abs(outputs["scores"] - expected.numpy()).max() < 1e-5
    # Fed the wrong class, the last frame differs: the bound sees it.
    with torch.no_grad():
        wrong, _ = module(torch.from_numpy(preprocess(frames[-1], spec)).double(), expected[:, :1])
    assert np.abs(outputs["scores"] - torch.softmax(wrong, 1).numpy()).max() > 1e-3
    assert pytest.approx(1, abs=1e-5) == outputs["scores"].sum(1).mean()
