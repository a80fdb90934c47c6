"""Frames from files that OpenCV wrote here, whole and damaged, and from a camera up to the border of the process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from video_files import index_first, moving_frames, write_video

from deploykit.errors import DeviceError, ImageError, UsageError
from deploykit.preview import sources
from deploykit.preview.records import Kind
from deploykit.preview.sources import opened_source
from deploykit.report.picture import write_image

COUNT = 30


@pytest.fixture(scope="module")
def frames():
    return moving_frames(COUNT)


@pytest.fixture(scope="module")
def video(frames, tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("video") / "whole.mp4", frames)


def read_until_error(path):
    """Return how many frames come before the error, and the error."""
    found = 0
    with opened_source(str(path)) as source:
        frames = source.frames()
        try:
            for _ in frames:
                found += 1
        except ImageError as error:
            return found, error
    return pytest.fail(f"{found} frames and no error")


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mp4v"), ("b.avi", "MJPG")])
def test_a_video_is_read_whole_in_red_green_blue(tmp_path, frames, name, codec):
    path = write_video(tmp_path / name, frames, codec=codec)
    with opened_source(str(path)) as source:
        assert (source.kind, source.fps, source.total) == (Kind.VIDEO, 12.5, COUNT)
        found = list(source.frames())
    assert [one.name for one in found[:2]] == ["000001", "000002"]
    assert len(found) == COUNT
    errors = [np.abs(one.pixels.astype(int) - frame).mean() for one, frame in zip(found, frames, strict=True)]
    assert max(errors) < 12
    assert np.abs(found[0].pixels[:, :, ::-1].astype(int) - frames[0]).mean() > 20


def test_a_video_with_its_index_at_the_end_is_nothing_without_it(tmp_path, video):
    content = video.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match="cannot be opened") as caught, opened_source(str(tmp_path / "cut.mp4")):
        pass
    assert "cut off, damaged" in caught.value.found


def test_a_video_that_is_cut_off_gives_the_frames_that_it_holds(tmp_path, video):
    content = index_first(video.read_bytes())
    (tmp_path / "whole.mp4").write_bytes(content)
    with opened_source(str(tmp_path / "whole.mp4")) as source:
        assert sum(1 for _ in source.frames()) == COUNT
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 2 // 3])
    found, error = read_until_error(tmp_path / "cut.mp4")
    assert 5 < found < COUNT - 3
    assert error.found == f"{found} frames that can be decoded"
    assert error.expected == f"{COUNT} frames, as the file says of itself"


def test_a_cut_off_avi_is_noticed_too(tmp_path, frames):
    path = write_video(tmp_path / "cut.avi", frames, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found, error = read_until_error(path)
    assert 5 < found < COUNT - 3
    assert "cut off or damaged" in error.message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.mp4", b"", "an empty file"),
        ("text.txt", b"some words", "no video"),
        ("noise.mp4", bytes(range(256)) * 20, "cut off, damaged"),
    ],
)
def test_files_that_are_no_videos_are_refused(tmp_path, capfd, name, content, expected):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError) as caught, opened_source(str(tmp_path / name)):
        pass
    assert expected in caught.value.found
    assert capfd.readouterr().err == ""


def test_a_folder_is_read_in_the_order_of_its_numbers(tmp_path, frames):
    for index in (10, 9, 1):
        write_image(tmp_path / f"frame {index}.png", frames[index])
    (tmp_path / "notes.txt").write_text("passed over")
    with opened_source(str(tmp_path)) as source:
        found = list(source.frames())
        assert (source.kind, source.total) == (Kind.FOLDER, 3)
    assert [one.name for one in found] == ["frame 1", "frame 9", "frame 10"]
    assert np.array_equal(found[1].pixels, frames[9])


def test_one_image_is_one_frame_without_time(tmp_path, frames):
    write_image(tmp_path / "photo.png", frames[0])
    with opened_source(str(tmp_path / "photo.png")) as source:
        assert (source.kind, source.fps, source.total) == (Kind.IMAGE, None, 1)
        assert [one.name for one in source.frames()] == ["photo"]


def test_nothing_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="which does not exist"), opened_source(str(tmp_path / "none.mp4")):
        pass
    with pytest.raises(ImageError, match="holds no images"), opened_source(str(tmp_path)):
        pass


def test_a_camera_that_is_not_there_is_one_error(capfd):
    with pytest.raises(DeviceError, match="no such camera") as caught, opened_source("camera:97"):
        pass
    assert caught.value.where == "camera:97"
    assert capfd.readouterr().err == ""


class FakeCapture:
    """Stands for a camera, which test machines lack, at the border of the process: OpenCV's capture object."""

    def __init__(self, number, pictures):
        self.number, self.pictures, self.released = number, iter(pictures), False

    def isOpened(self):
        return True

    def get(self, what):
        return 0.0

    def set(self, what, value):
        return True

    def read(self):
        picture = next(self.pictures, None)
        return picture is not None, picture

    def release(self):
        self.released = True


def test_a_camera_gives_frames_until_it_is_lost(monkeypatch, frames):
    made = []

    def capture(number):
        made.append(FakeCapture(number, [frame[:, :, ::-1] for frame in frames[:3]]))
        return made[-1]

    monkeypatch.setattr(sources.cv2, "VideoCapture", capture)
    with opened_source("camera:2") as source:
        assert (source.kind, source.fps, source.total, source.description) == (Kind.CAMERA, 30.0, None, "camera:2")
        found = list(itertools.islice(source.frames(), 3))
        assert all(np.array_equal(one.pixels, frame) for one, frame in zip(found, frames, strict=False))
        with pytest.raises(DeviceError, match="gives no picture"):
            next(source.frames())
    assert made[0].number == 2
    assert made[0].released
