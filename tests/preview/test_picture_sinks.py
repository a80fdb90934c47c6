from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from video_files import moving_frames, read_video, write_video

from deploykit.errors import ImageError, UsageError
from deploykit.images.preprocess import read_image
from deploykit.preview.sinks import FolderSink, ImageSink, VideoSink, sink_for
from deploykit.preview.sources import Frame, opened_source
from deploykit.report.picture import write_image


@pytest.fixture
def frames():
    return moving_frames(6)


def written(sink, frames):
    for index, pixels in enumerate(frames):
        sink.write(Frame(f"{index}", pixels), pixels)
    return sink


def test_a_video_is_whole_or_not_there(tmp_path, frames):
    sink = written(VideoSink(tmp_path / "new" / "out.mp4", 12.5, None), frames)
    assert not (tmp_path / "new" / "out.mp4").exists()
    sink.finish()
    found, fps = read_video(tmp_path / "new" / "out.mp4")
    assert (len(found), fps) == (6, 12.5)
    assert np.abs(found[5].astype(int) - frames[5]).mean() < 12
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.mp4"]
    assert sink.codec in ("avc1", "mp4v")


def test_odd_sides_lose_nothing(tmp_path, frames):
    written(sink := VideoSink(tmp_path / "out.mp4", 25, "mp4v"), [frame[:95, :127] for frame in frames]).finish()
    found, _ = read_video(tmp_path / "out.mp4")
    assert found[0].shape == (96, 128, 3)
    assert sink.codec == "mp4v"


def test_a_codec_that_is_missing_leaves_nothing_behind(tmp_path, frames, capfd):
    with pytest.raises(ImageError, match="codec is missing") as caught:
        written(VideoSink(tmp_path / "out.mp4", 25, "qqqq"), frames)
    assert "qqqq at 128x96" in caught.value.found
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr().err == ""


def test_another_size_is_refused_and_what_there_is_can_be_kept(tmp_path, frames):
    sink = written(VideoSink(tmp_path / "out.mp4", 25, "mp4v"), frames[:3])
    with pytest.raises(ImageError, match="another size") as caught:
        sink.write(Frame("x", frames[3]), frames[3][:50])
    assert (caught.value.found, caught.value.expected) == ("128x50 pixels", "128x96, as the first frame")
    sink.finish()
    assert len(read_video(tmp_path / "out.mp4")[0]) == 3


def test_a_video_that_lost_frames_is_not_put_in_place(tmp_path, frames):
    sink = written(VideoSink(tmp_path / "out.mp4", 25, "mp4v"), frames)
    sink._written += 1
    with pytest.raises(ImageError, match="could not be written whole") as caught:
        sink.finish()
    assert caught.value.found == "6 frames in the file"
    assert not list(tmp_path.iterdir())


def test_an_abort_leaves_nothing(tmp_path, frames):
    written(VideoSink(tmp_path / "out.mp4", 25, "mp4v"), frames).abort()
    assert not list(tmp_path.iterdir())


def test_pictures_of_a_folder_are_called_as_their_frames(tmp_path, frames):
    written(FolderSink(tmp_path / "out"), frames).finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [f"{index}.png" for index in range(6)]
    assert np.array_equal(read_image(tmp_path / "out" / "4.png"), frames[4])


@pytest.fixture
def here(tmp_path, frames, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "video.mp4", frames)
    write_image(tmp_path / "photo.png", frames[0])
    for name in ("a.png", "b.png"):
        write_image(tmp_path / "frames" / name, frames[0])
    (tmp_path / "file").write_text("taken")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "folder.png").mkdir()
    write_image(tmp_path / "twice" / "a.png", frames[0])
    write_image(tmp_path / "twice" / "a.jpg", frames[0])
    return tmp_path


@pytest.mark.parametrize(
    ("named", "output", "kind"),
    [
        ("photo.png", "out.jpg", ImageSink),
        ("frames", "out", FolderSink),
        ("frames", "out.mp4", VideoSink),
        ("video.mp4", "out.mp4", VideoSink),
        ("video.mp4", "frames", FolderSink),
    ],
)
def test_the_output_s_suffix_decides(here, named, output, kind):
    with opened_source(named) as source:
        assert type(sink_for(Path(output), source, None, None)) is kind


@pytest.mark.parametrize(
    ("named", "output", "expected"),
    [
        ("photo.png", "out.mp4", "does not fit the input"),
        ("photo.png", "out", "does not fit the input"),
        ("video.mp4", "out.png", "does not fit the input"),
        ("video.mp4", "out.avi", "does not fit the input"),
        ("video.mp4", "file", "there as something else"),
        ("video.mp4", "folder.mp4", "there as something else"),
        ("photo.png", "folder.png", "there as something else"),
        ("video.mp4", "file/out.mp4", "cannot be written"),
        ("video.mp4", "video.mp4", "written over"),
        ("photo.png", "./photo.png", "written over"),
        ("frames", "frames", "written over"),
        ("twice", "out", "Two frames would get the same file"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(here, named, output, expected):
    with opened_source(named) as source, pytest.raises(UsageError, match=expected):
        sink_for(Path(output), source, None, None)
