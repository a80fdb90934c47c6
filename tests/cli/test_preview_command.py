"""``deploykit preview`` from end to end: what it writes, what it records, and what it keeps when something ends it."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_case import write_video_case
from video_files import index_first, moving_frames, read_video, write_video

from deploykit import api
from deploykit.images.preprocess import read_image
from deploykit.images.synthetic.motion import synthesize_clip
from deploykit.preview.choices import Picture
from deploykit.preview.composite import soft_edge
from deploykit.preview.play import preview
from deploykit.preview.records import Ended, Options
from deploykit.preview.sinks import VideoSink
from deploykit.report.picture import write_image
from deploykit.verify.contract import softmax

COUNT = 8


@pytest.fixture(scope="module")
def clip():
    return synthesize_clip(930_001, 96, COUNT)


@pytest.fixture
def video(here, clip):
    return write_video(here / "clip.mp4", list(clip.frames))


def leftovers(folder):
    return [path.name for path in folder.rglob(".*partial*")]


def test_an_image_is_cut_out_by_the_probability(deploykit, small_onnx, here, clip):
    write_image(here / "photo.png", clip.frames[0])
    result = deploykit("preview", small_onnx, "--input", "photo.png", "--picture", "mask", "--output", "mask.png")
    assert result.code == 0, result.err
    assert "1 frame: mask.png" in result.out
    scores = api.run(small_onnx, image=here / "photo.png")["scores"]
    expected = cv2.resize(softmax(scores)[0, 1].astype(np.float32), (96, 96), interpolation=cv2.INTER_LINEAR)
    mask = cv2.imread(str(here / "mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (96, 96), "one channel"
    assert np.abs(mask - 255 * expected).max() < 1
    assert len(np.unique(mask)) > 50, "edges are soft"
    result = deploykit("preview", small_onnx, "--input", "photo.png", "--background", "#00ff00", "--hard-edges")
    assert result.code == 0, result.err
    shown, inside = read_image(here / "preview.png"), expected > 0.5
    assert 0.02 < inside.mean() < 0.98
    assert np.array_equal(shown[inside], clip.frames[0][inside])
    assert (shown[~inside] == (0, 255, 0)).all()


@pytest.mark.parametrize("name", ["cut.png", "cut.webp", "frames"])
def test_a_cut_out_alone_is_transparent_where_nobody_is(deploykit, small_onnx, here, clip, name):
    write_image(here / "photos" / "cut.png", clip.frames[0])
    source = here / "photos" if name == "frames" else here / "photos" / "cut.png"
    result = deploykit("preview", small_onnx, "--input", source, "--output", name)
    assert result.code == 0, result.err
    found = cv2.imread(str(here / name / "cut.png" if name == "frames" else here / name), cv2.IMREAD_UNCHANGED)
    probability = 1 - softmax(api.run(small_onnx, image=here / "photos" / "cut.png")["scores"])[0, 0]
    expected = soft_edge(cv2.resize(probability.astype(np.float32), (96, 96), interpolation=cv2.INTER_LINEAR))
    assert found.shape == (96, 96, 4)
    assert np.abs(found[:, :, 3] - 255 * expected).max() < 1
    seen = found[:, :, 3] > 0
    assert 0.02 < seen.mean() < 1
    assert np.array_equal(found[seen][:, 2::-1], clip.frames[0][seen])
    # WebP chooses colours of its own where nothing is seen.
    hidden = (found[~seen][:, 2::-1] == clip.frames[0][~seen]).all(axis=1)
    assert hidden.mean() < 0.05, "the background is not in the file"


@pytest.mark.parametrize("options", [("--output", "cut.jpg"), ("--output", "cut.png", "--side-by-side")])
def test_a_cut_out_that_has_no_alpha_is_over_a_chequered_ground(deploykit, small_onnx, here, clip, options):
    write_image(here / "photo.png", clip.frames[0])
    assert deploykit("preview", small_onnx, "--input", "photo.png", "--hard-edges", *options).code == 0
    found = cv2.imread(str(here / options[1]), cv2.IMREAD_UNCHANGED)
    assert found.shape[2] == 3
    probability = (1 - softmax(api.run(small_onnx, image=here / "photo.png")["scores"])[0, 0]).astype(np.float32)
    nobody = cv2.resize(probability, (96, 96), interpolation=cv2.INTER_LINEAR) < 0.45
    assert nobody.any()
    assert 200 < np.median(found[-96:, -96:][nobody]) < 240


def test_a_video_becomes_a_video_with_everything_on(deploykit, sinet_onnx, video, here):
    (artifact,) = sinet_onnx.folder.glob("sinet/onnx*")
    options = ("--background", "blur", "--open", "3", "--fuse", "--side-by-side", "--json")
    result = deploykit("preview", artifact, "--input", video, "--output", "out/new.mp4", *options)
    assert result.code == 0, result.err
    body = json.loads(result.out)["body"]
    frames, fps = read_video(here / "out" / "new.mp4")
    assert (len(frames), fps, frames[0].shape) == (COUNT, 12.5, (116, 192, 3))
    assert (body["frames"], body["total"], body["input_fps"], body["ended"]) == (COUNT, COUNT, 12.5, "complete")
    assert [one["name"] for one in body["stages"]] == [
        "decode", "preprocessing", "inference", "mask", "post-processing", "composite", "flicker", "encode",
    ]  # fmt: skip
    assert all(0 < one["cpu_s"] < 5 for one in body["stages"])
    (previewed,) = body["previewed"]
    assert 0 <= previewed["flicker_fused"] < previewed["flicker"] < 1
    assert not leftovers(here)
    # Without --fuse there is nothing to compare with.
    result = deploykit("preview", artifact, "--input", video, "--json")
    (plain,) = json.loads(result.out)["body"]["previewed"]
    assert plain["flicker_fused"] is None
    assert (here / "preview.mp4").is_file()


def test_several_artifacts_stand_beside_each_other(deploykit, small_onnx, video, here, small):
    shutil.copytree(small_onnx, here / "other")
    result = deploykit("preview", small_onnx, "other", small, "--input", video, "--frames", "2", "--output", "out")
    assert result.code == 0, result.err
    assert sorted(path.name for path in (here / "out").iterdir()) == ["000001.png", "000002.png"]
    picture = read_image(here / "out" / "000002.png")
    assert picture.shape == (116, 3 * 96, 3)
    one, other, eager = (picture[20:, 96 * index : 96 * index + 96].astype(int) for index in range(3))
    assert np.array_equal(one, other)
    assert np.abs(one - eager).max() <= 1
    assert result.out.count("ONNX Runtime") == 2
    assert "PyTorch" in result.out


def test_a_network_for_video_gets_its_own_output(here):
    (artifact,) = api.export(write_video_case(here / "case"), targets=["onnx"], output_dir=here / "exported")
    for index, frame in enumerate(moving_frames(3, 64, 96)):
        write_image(here / "frames" / f"{index}.png", frame)
    options = Options(picture=Picture.MASK)
    run = preview([artifact], "frames", Path("masks"), options)
    assert (run.frames, run.kind, run.input_fps) == (3, "folder", 25)
    outputs = list(api.run_sequence(artifact, [here / "frames" / f"{index}.png" for index in range(3)]))
    found = [read_image(here / "masks" / f"{index}.png")[:, :, 0] / 255 for index in range(3)]
    for mask, one in zip(found, outputs, strict=True):
        assert np.abs(mask - enlarged(1 - softmax(one["scores"])[0, 0])).max() < 0.01
    alone = api.run(artifact, image=here / "frames" / "2.png")["scores"]
    assert np.abs(found[2] - enlarged(1 - softmax(alone)[0, 0])).max() > 0.3


def enlarged(small):
    return cv2.resize(small.astype(np.float32), (96, 64), interpolation=cv2.INTER_LINEAR)


def test_a_cut_off_video_keeps_the_frames_so_far(deploykit, small_onnx, here):
    whole = write_video(here / "whole.mp4", moving_frames(30))
    content = index_first(whole.read_bytes())
    (here / "cut.mp4").write_bytes(content[: len(content) // 2])
    result = deploykit("preview", small_onnx, "--input", "cut.mp4", "--json")
    assert result.code == 1
    body = json.loads(result.out)["body"]
    kept, _ = read_video(here / "preview.mp4")
    assert 5 < len(kept) == body["frames"] < 27
    assert body["ended"] == "failed"
    assert f"found: {len(kept)} frames that can be decoded" in body["problem"]
    assert f"kept: {len(kept)} frames before" in result.err
    assert not leftovers(here)


def frames_of(here, sizes):
    for index, size in enumerate(sizes):
        write_image(here / "frames" / f"{index}.png", synthesize_clip(930_002, size, 1).frames[0])


def test_frames_of_another_size_end_a_video_and_not_a_folder_of_photos(deploykit, small_onnx, here):
    frames_of(here, (96, 96, 80, 96))
    result = deploykit("preview", small_onnx, "--input", "frames", "--output", "out.mp4")
    assert result.code == 1
    assert "frame 2" in result.err
    assert "80x80 pixels" in result.err
    assert len(read_video(here / "out.mp4")[0]) == 2
    assert deploykit("preview", small_onnx, "--input", "frames", "--output", "fused", "--fuse").code == 1
    assert len(list((here / "fused").iterdir())) == 2
    result = deploykit("preview", small_onnx, "--input", "frames", "--output", "photos")
    assert result.code == 0
    assert "4 frames, of 2 sizes, the last one 96x96" in result.out
    assert read_image(here / "photos" / "2.png").shape == (80, 80, 3)


def test_a_frame_that_cannot_be_read_keeps_those_before(deploykit, small_onnx, here):
    frames_of(here, (96, 96, 96))
    (here / "frames" / "1.png").write_text("no picture")
    result = deploykit("preview", small_onnx, "--input", "frames")
    assert result.code == 1
    assert "1.png" in result.err
    assert [path.name for path in (here / "preview").iterdir()] == ["0.png"]
    # Where it is the first one, there is nothing to keep.
    (here / "frames" / "0.png").write_text("no picture")
    result = deploykit("preview", small_onnx, "--input", "frames", "--output", "none.mp4")
    assert result.code == 2
    assert not (here / "none.mp4").exists()


def test_whoever_stops_keeps_a_video_that_plays(small_onnx, video, here):
    seen = []

    def publish(picture):
        seen.append(picture)

    run = preview(
        [small_onnx], str(video), Path("part.mp4"), Options(), publish=publish, stopped=lambda: len(seen) >= 3
    )
    assert run.ended is Ended.STOPPED
    frames, _ = read_video(here / "part.mp4")
    assert len(frames) == run.frames == len(seen) == 3
    assert np.abs(frames[0].astype(int) - seen[0]).mean() < 12


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_keeps_a_video_that_plays(deploykit, small_onnx, video, here, monkeypatch, presses):
    write, handler = VideoSink.write, signal.getsignal(signal.SIGINT)

    def interrupted(self, frame, pixels):
        write(self, frame, pixels)
        if frame.name == "000003":
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(VideoSink, "write", interrupted)
    result = deploykit("preview", small_onnx, "--input", video, "--output", "part.mp4")
    # The first one ends it after the frame at hand, the second one at once.
    assert result.code == (1 if presses == 1 else 130)
    assert ("stopped by Ctrl-C: 3 frames kept" in result.err) == (presses == 1)
    assert len(read_video(here / "part.mp4")[0]) == 3
    assert not leftovers(here)
    assert signal.getsignal(signal.SIGINT) is handler


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--input", "none.mp4"), "which does not exist"),
        (("--input", "camera:98"), "no such camera"),
        (("--input", "empty"), "holds no images"),
        (("--input", "clip.mp4", "--output", "empty.png"), "does not fit the input"),
        (("--input", "clip.mp4", "--output", "taken.mp4"), "there as something else"),
        (("--input", "clip.mp4", "--codec", "qqqq"), "codec is missing"),
        (("--input", "clip.mp4", "--codec", "longer"), "four letters"),
        (("--input", "clip.mp4", "--open", "4"), "odd number"),
        (("--input", "clip.mp4", "--open", "0"), "odd number"),
        (("--input", "clip.mp4", "--frames", "0"), "at least 1"),
        (("--input", "clip.mp4", "--fps", "nan"), "above 0"),
        (("--input", "clip.mp4", "--background", "green"), "background is not understood"),
        (("--input", "clip.mp4", "--picture", "mask", "--background", "blur"), "nothing else takes one"),
        (("--input", "clip.mp4", "--picture", "background"), "needs one"),
        (("--input", "clip.mp4", "--no-open"), "belong to --show"),
    ],
)
def test_what_cannot_be_done_is_one_error(deploykit, small_onnx, video, here, arguments, expected):
    (here / "empty").mkdir()
    (here / "taken.mp4").mkdir()
    before = sorted(here.rglob("*"))
    result = deploykit("preview", small_onnx, *arguments)
    assert result.code == 2
    assert expected in result.err
    assert result.out == ""
    assert sorted(here.rglob("*")) == before
