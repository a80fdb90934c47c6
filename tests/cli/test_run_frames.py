"""``deploykit run`` on the frames of a video: their order, where the masks go, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from video_case import write_video_case

from deploykit import api
from deploykit.artifact import MANIFEST
from deploykit.images.preprocess import read_image
from deploykit.images.synthetic import synthesize
from deploykit.recipe import recipe_from_table
from deploykit.report.picture import mask_of, write_image

# In the order of the alphabet, frame 10 would come first.
NAMES = ("frame 1.png", "frame 2.png", "frame 10.png")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("video")
    (made,) = api.export(write_video_case(folder), targets=["onnx"], output_dir=folder / "out")
    return made


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(NAMES):
        write_image(tmp_path / "frames" / name, synthesize(seed, 64).image[: 60 - 8 * seed])
    return tmp_path


def masks_of(artifact, frames):
    recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
    outputs = api.run_sequence(artifact, frames)
    return [mask_of(artifact, recipe, one, read_image(frame)) for frame, one in zip(frames, outputs, strict=True)]


def test_a_folder_is_run_in_the_order_of_its_numbers(deploykit, artifact, here):
    result = deploykit("run", artifact.path, "--input", "frames", "--cut-out", "pictures")
    assert result.code == 0, result.err
    assert result.out.splitlines() == [f"masks/{name}" for name in NAMES]
    assert "of the pixels of 3 photos are foreground" in result.err
    frames = [here / "frames" / name for name in NAMES]
    expected = masks_of(artifact, frames)
    written = [read_image(here / "masks" / name)[:, :, 0] for name in NAMES]
    assert all(np.array_equal(one, other) for one, other in zip(written, expected, strict=True))
    # In another order the masks are others: what came before counts.
    turned = masks_of(artifact, sorted(frames))[::-1]
    assert not any(np.array_equal(one, other) for one, other in zip(written[:2], turned[:2], strict=True))
    for frame, name in zip(frames, NAMES, strict=True):
        assert read_image(here / "pictures" / name).shape[0] == read_image(frame).shape[0] + 16


def test_several_inputs_are_run_in_the_order_given(deploykit, artifact, here):
    frames = [here / "frames" / name for name in (NAMES[2], NAMES[0])]
    result = deploykit("run", artifact.path, "--input", frames[0], "--input", frames[1], "--output", "out")
    assert result.code == 0, result.err
    assert result.out.splitlines() == [f"out/{NAMES[2]}", f"out/{NAMES[0]}"]
    for frame, expected in zip(frames, masks_of(artifact, frames), strict=True):
        assert np.array_equal(read_image(here / "out" / frame.name)[:, :, 0], expected)


def test_one_photo_is_a_first_frame_and_gives_one_file(deploykit, artifact, here):
    result = deploykit("run", artifact.path, "--input", f"frames/{NAMES[1]}")
    assert (result.code, result.out) == (0, "mask.png\n"), result.err
    (expected,) = masks_of(artifact, [here / "frames" / NAMES[1]])
    assert np.array_equal(read_image(here / "mask.png")[:, :, 0], expected)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--input", "frames", "--output", "mask.png"), "a folder for them"),
        (("--input", "frames", "--cut-out", "three.JPG"), "a folder for them"),
        (("--input", "frames", "--output", "frames"), "written over"),
        (("--input", "frames", "--output", "out", "--cut-out", "out"), "written over"),
        (("--input", f"frames/{NAMES[0]}", "--input", f"frames/{NAMES[0]}"), "written over"),
        (("--input", f"frames/{NAMES[0]}", "--output", f"frames/{NAMES[0]}"), "written over"),
        (("--input", "empty"), "holds no images"),
    ],
)
def test_what_would_be_lost_or_is_not_there_is_refused(deploykit, artifact, here, arguments, expected):
    (here / "empty").mkdir()
    before = {path: path.read_bytes() for path in here.rglob("*.png")}
    result = deploykit("run", artifact.path, *arguments)
    assert result.code == 2
    assert expected in result.err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_a_frame_that_cannot_be_read_stops_behind_those_before(deploykit, artifact, here):
    (here / "frames" / NAMES[1]).write_text("no picture")
    result = deploykit("run", artifact.path, "--input", "frames")
    assert result.code == 2
    assert NAMES[1] in result.err
    assert result.out == f"masks/{NAMES[0]}\n"
