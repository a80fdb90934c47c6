"""Where frames come from: an image, a folder of frames, a video file or a camera."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from deploykit.chatter import contained
from deploykit.errors import DeviceError, ImageError, UsageError
from deploykit.images.preprocess import IMAGE_SUFFIXES, Pixels, image_paths, read_image
from deploykit.preview.records import Kind
from deploykit.vocab import in_words

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm"})
# A frame of a folder has no time of its own.
FOLDER_FPS = 25.0
CAMERA_FPS = 30.0
_CAMERA = re.compile(r"camera(?::(\d{1,3}))?")
# Rates beyond this one are a sign that a file does not know its own.
_FASTEST = 1000.0
# How many frames a video may lack at its end before it counts as cut off: containers round their length.
_SLACK = 2.5


@dataclass(frozen=True)
class Frame:
    """One picture (H, W, 3) in RGB, called ``name``: the file's name, or a number, without suffix."""

    name: str
    pixels: Pixels


class Source(Protocol):
    """Frames in order; ``fps`` is None where they have no time, ``total`` where nobody knows how many come."""

    kind: Kind
    description: str
    fps: float | None
    total: int | None
    files: tuple[Path, ...]

    def frames(self) -> Iterator[Frame]:
        """Yield the frames. Raises ImageError or DeviceError where they end before they should."""
        ...

    def close(self) -> None:
        """Release the file or device."""
        ...


class Images:
    """One image file, or those of a folder in the order of their names, the numbers in them by value."""

    def __init__(self, place: Path) -> None:
        self.kind = Kind.FOLDER if place.is_dir() else Kind.IMAGE
        self.description = place.as_posix()
        self.files = tuple(sorted(image_paths(place), key=_by_value))
        self.fps = FOLDER_FPS if place.is_dir() else None
        self.total: int | None = len(self.files)

    def frames(self) -> Iterator[Frame]:
        """Yield the images. Raises ImageError for the first one that cannot be read."""
        for path in self.files:
            yield Frame(path.stem, read_image(path))

    def close(self) -> None:
        """Nothing is open."""


class Video:
    """A video file, as OpenCV's FFmpeg decodes it, turned as its rotation flag says."""

    kind = Kind.VIDEO

    def __init__(self, path: Path) -> None:
        self.description = path.as_posix()
        self.files: tuple[Path, ...] = (path,)
        # One thread for decoding: what it takes is then counted where it happens.
        self._capture = _capture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
        if not self._capture.isOpened():
            self._capture.release()
            raise ImageError(
                "The video cannot be opened.",
                where=str(path),
                found=_what_it_is(path),
                expected="a whole MP4, MOV, AVI, MKV or WebM file of a codec that OpenCV's FFmpeg decodes",
                next_step="convert it with: ffmpeg -i INPUT -pix_fmt yuv420p OUTPUT.mp4",
            )
        self.fps = _rate(self._capture)
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.total: int | None = int(count) if 0 < count < 1e9 else None

    def frames(self) -> Iterator[Frame]:
        """Yield the frames. Raises ImageError where the file is cut off, behind the frames that it holds."""
        number, seconds = 0, 0.0
        while True:
            read, pixels = self._capture.read()
            if not read:
                break
            number, seconds = number + 1, self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
            yield Frame(f"{number:06d}", np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))
        if number and (self.total is None or self.fps is None):
            return
        # By frames and by time, since a rate that varies makes either of them an estimate.
        total = self.total or 0
        lacking = min(total - number, total - 1 - seconds * (self.fps or 0))
        if number == 0 or lacking > _SLACK:
            raise ImageError(
                "The video ends before its end: it is cut off or damaged.",
                where=self.description,
                found=f"{in_words(number, 'frame')} that can be decoded",
                expected=f"{in_words(total, 'frame') if total else 'more frames'}, as the file says of itself",
            )

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


class Camera:
    """A camera of this computer, by its number."""

    kind = Kind.CAMERA
    total: int | None = None
    files: tuple[Path, ...] = ()

    def __init__(self, number: int) -> None:
        self.description = f"camera:{number}"
        self._capture = _capture(number)
        if not self._capture.isOpened():
            self._capture.release()
            raise DeviceError(
                "There is no such camera, or it may not be used.",
                where=self.description,
                found="nothing that opens",
                expected="a camera that no other program uses, and the right to use it",
                next_step="try another number, such as --input camera:1, or give a video file",
            )
        # The newest picture, not one that waited.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps: float | None = _rate(self._capture) or CAMERA_FPS

    def frames(self) -> Iterator[Frame]:
        """Yield what the camera sees until somebody stops. Raises DeviceError where it is lost."""
        number = 0
        while True:
            read, pixels = self._capture.read()
            if not read:
                raise DeviceError(
                    "The camera gives no picture.",
                    where=self.description,
                    found=f"nothing after {in_words(number, 'frame')}",
                    expected="a camera that stays connected",
                )
            number += 1
            yield Frame(f"{number:06d}", np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8))

    def close(self) -> None:
        """Release the camera."""
        self._capture.release()


@contextmanager
def opened_source(named: str) -> Iterator[Source]:
    """Yield the frames of ``named``: ``camera``, ``camera:N``, or the path of an image, a folder or a video.

    Raises UsageError for what is nothing of these, ImageError or DeviceError for what cannot be opened.
    """
    source = _open(named)
    try:
        yield source
    finally:
        source.close()


def _open(named: str) -> Source:
    camera = _CAMERA.fullmatch(named)
    if camera:
        return Camera(int(camera[1] or 0))
    path = Path(named)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES):
        return Images(path)
    if path.is_file():
        return Video(path)
    raise UsageError(
        "There is nothing to preview.",
        where="--input",
        found=f"{named}, which does not exist",
        expected="an image, a folder of frames, a video file, camera, or camera:1 for the second one",
    )


def _capture(*arguments: Any) -> Any:
    """Return an opened capture, with what OpenCV and FFmpeg say about failures kept from stderr: errors say it."""
    # FFmpeg reads it once; later opens keep it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with contained():
            return cv2.VideoCapture(*arguments)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _rate(capture: Any) -> float | None:
    fps = float(capture.get(cv2.CAP_PROP_FPS))
    return fps if math.isfinite(fps) and 0 < fps <= _FASTEST else None


def _what_it_is(path: Path) -> str:
    size = path.stat().st_size
    if size == 0:
        return "an empty file"
    if path.suffix.lower() in VIDEO_SUFFIXES:
        return f"{size} bytes that are cut off, damaged, or of a codec that is missing here"
    return f"{size} bytes that are no video"


def _by_value(path: Path) -> list[tuple[int, str]]:
    # Text and numbers take turns, so that like is compared with like.
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]
