"""Frames of a video through a file: each one's probability is the next one's input, as the recipe says."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from video_case import write_video_case

from deploykit import api
from deploykit.errors import ArtifactError, CaptureError, ImageError
from deploykit.images.preprocess import preprocess
from deploykit.images.synthetic import synthesize
from deploykit.lowering import ExportOptions
from deploykit.report.picture import write_image
from deploykit.vocab import InputKind, Layout, Target

FRAMES = [np.ascontiguousarray(synthesize(seed, 64).image[: 40 + 4 * seed]) for seed in range(3)]

CONTRACT = {"output": "scores", "class_name": "hair", "first": 0.25}
FULL = pytest.mark.full


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return api.load(write_video_case(tmp_path_factory.mktemp("video")))


@pytest.fixture(scope="module")
def artifact(network, tmp_path_factory):
    (made,) = api.export(network, targets=["onnx"], output_dir=tmp_path_factory.mktemp("out"))
    return made


@pytest.fixture(scope="module")
def expected(network):
    """The scores of the training form in float64, frame by frame."""
    module = network.module.double()
    (spec, _), prior = network.recipe.file.inputs, torch.full((1, 1, 32, 48), 0.25).double()
    found = []
    with torch.no_grad():
        for frame in FRAMES:
            scores, _ = module(torch.from_numpy(preprocess(frame, spec)).double(), prior)
            prior = torch.softmax(scores, 1)[:, 1:2]
            found.append(scores.numpy())
    module.float()
    return found


def scores_of(outputs):
    return [one["scores"] for one in outputs]


def test_each_frame_gets_the_probability_of_the_one_before(artifact, expected):
    found = scores_of(api.run_sequence(artifact, FRAMES))
    assert len(found) == len(FRAMES)
    for got, wanted in zip(found, expected, strict=True):
        assert np.abs(got - wanted).max() < 1e-4
    # Alone, the same frames give something else: the input matters, and the bound sees it.
    alone = [api.run(artifact, image=frame)["scores"] for frame in FRAMES]
    assert np.abs(alone[0] - expected[0]).max() < 1e-4
    assert all(np.abs(one - wanted).max() > 0.1 for one, wanted in zip(alone[1:], expected[1:], strict=True))


def test_two_sequences_at_once_do_not_mix(artifact, expected):
    one, other = (api.run_sequence(artifact, frames) for frames in (FRAMES, FRAMES[::-1]))
    next(one)
    next(other)
    assert np.abs(next(one)["scores"] - expected[1]).max() < 1e-4


def said_in_the_file(path, target):
    """What the file says of itself, read as others would read it."""
    if target is Target.ONNX:
        import onnx

        return {one.key: one.value for one in onnx.load(str(path)).metadata_props}
    if target is Target.COREML:
        import coremltools as ct

        written = ct.utils.load_spec(str(path)).description.metadata.userDefined
        return {key.removeprefix("deploykit."): value for key, value in written.items()}
    if target is Target.COREAI:
        written = json.loads((path / "metadata.json").read_text("utf-8"))["creatorDefinedMetadata"]
        return {key.removeprefix("deploykit."): value for key, value in written.items()}
    from deploykit.targets.tflite.metadata import read_metadata

    return read_metadata(path)


@pytest.mark.parametrize(
    ("target", "options"),
    [
        pytest.param(Target.TFLITE, ExportOptions(layout=Layout.NHWC, input_kind=InputKind.IMAGE), id="nhwc image"),
        pytest.param(Target.COREML, ExportOptions(input_kind=InputKind.IMAGE), id="coreml image"),
        pytest.param(Target.COREAI, ExportOptions(input_kind=InputKind.IMAGE), id="coreai image", marks=FULL),
        pytest.param(Target.ONNX, ExportOptions(input_kind=InputKind.IMAGE), id="onnx image"),
    ],
)
def test_every_file_feeds_back_and_says_so(network, expected, tmp_path, target, options):
    (artifact,) = api.export(network, targets=[target], output_dir=tmp_path, options=options)
    found = scores_of(api.run_sequence(artifact, FRAMES))
    axes = (0, 3, 1, 2) if options.layout is Layout.NHWC else (0, 1, 2, 3)
    for got, wanted in zip(found, expected, strict=True):
        assert np.abs(got.transpose(axes) - wanted).max() < 1e-3
    said = said_in_the_file(artifact.path, target)
    assert json.loads(said["feedback.prior"]) == CONTRACT
    assert "probability of hair (softmax of scores) in the frame before; first 0.25" in said["input.prior"]
    assert "feedback.image" not in said


def test_paths_are_read_when_their_turn_comes(artifact, expected, tmp_path):
    write_image(tmp_path / "first.png", FRAMES[0])
    frames = api.run_sequence(artifact, [tmp_path / "first.png", tmp_path / "absent.png"])
    assert np.abs(next(frames)["scores"] - expected[0]).max() < 1e-4
    with pytest.raises(ImageError, match=r"absent\.png"):
        next(frames)


def test_the_contract_is_in_the_manifest(artifact):
    written = json.loads((artifact.path.parent / "manifest.json").read_text("utf-8"))
    (_, prior) = written["body"]["recipe_table"]["inputs"]
    assert prior["feedback"] == CONTRACT


def test_an_input_without_feedback_is_asked_for(network, tmp_path):
    path = network.recipe.path
    text = path.read_text("utf-8").replace("feedback = { output", "# { output")
    plain = path.with_name("plain.toml")
    plain.write_text(text, "utf-8")
    (artifact,) = api.export(plain, targets=["onnx"], output_dir=tmp_path)
    with pytest.raises(ArtifactError, match="values for prior as well"):
        next(api.run_sequence(artifact, FRAMES))
    with pytest.raises(ArtifactError, match="values for prior as well"):
        api.run(artifact, image=FRAMES[0])


def test_feedback_of_another_size_than_its_output_is_refused(tmp_path):
    network = api.load(write_video_case(tmp_path, "Coarse"))
    with pytest.raises(CaptureError) as caught:
        api.verify_reparam(network)
    assert caught.value.found == "prior [1, 1, 32, 48], scores [1, 3, 16, 24]"
