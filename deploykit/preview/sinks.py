"""Where pictures go: one image, a folder of images, or a video without sound."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from deploykit.chatter import contained
from deploykit.errors import ImageError, UsageError
from deploykit.images.preprocess import IMAGE_SUFFIXES, Pixels
from deploykit.preview.records import Kind
from deploykit.preview.sources import FOLDER_FPS, Frame, Source
from deploykit.report.picture import write_image
from deploykit.vocab import in_words

VIDEO_SUFFIX = ".mp4"
# The first one that this OpenCV can write: H.264 plays everywhere, MPEG-4 part 2 is what every build has.
CODECS = ("avc1", "mp4v")
_PARTIAL = ".partial"
# Formats of images with an alpha channel.
_TRANSPARENT = frozenset({".png", ".webp", ".tif", ".tiff"})
DEFAULT_OUTPUTS = {
    Kind.IMAGE: Path("preview.png"),
    Kind.FOLDER: Path("preview"),
    Kind.VIDEO: Path("preview.mp4"),
    Kind.CAMERA: Path("preview.mp4"),
}


class Sink(Protocol):
    """Takes one picture for each frame: (H, W, 3), or another one of the numbers of ``channels``, 1 as (H, W).

    What was written is in place only after ``finish``.
    """

    path: Path
    codec: str | None
    channels: frozenset[int]

    def write(self, frame: Frame, pixels: Pixels) -> None:
        """Take the picture that was made of ``frame``. Raises ImageError where it cannot be written."""
        ...

    def finish(self) -> None:
        """Put what there is in place. Raises ImageError where it is not whole."""
        ...

    def abort(self) -> None:
        """Leave nothing half-written behind."""
        ...


class ImageSink:
    """One image file."""

    codec: str | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels = frozenset({1, 3, 4} if path.suffix.lower() in _TRANSPARENT else {1, 3})

    def write(self, frame: Frame, pixels: Pixels) -> None:
        """Write the picture under a temporary name, then rename it."""
        del frame
        write_whole(self.path, pixels)

    def finish(self) -> None:
        """The picture is in place already."""

    def abort(self) -> None:
        """Nothing is left half-written."""


class FolderSink:
    """A PNG for each frame, called as the frame is."""

    codec: str | None = None
    channels = frozenset({1, 3, 4})

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, frame: Frame, pixels: Pixels) -> None:
        """Write one picture."""
        write_whole(self.path / f"{frame.name}.png", pixels)

    def finish(self) -> None:
        """The pictures are in place already."""

    def abort(self) -> None:
        """Nothing is left half-written."""


class VideoSink:
    """An MP4 under a temporary name until it is whole. A side of odd length loses no column: one is doubled."""

    channels = frozenset({3})

    def __init__(self, path: Path, fps: float, codec: str | None) -> None:
        self.path, self.codec = path, codec
        self._fps = fps
        self._writer: Any = None
        self._shape: tuple[int, ...] = ()
        self._written = 0
        self._temporary: Path | None = None

    def write(self, frame: Frame, pixels: Pixels) -> None:
        """Encode one picture. Raises ImageError for one of another size than the first."""
        if self._writer is None:
            self._shape = pixels.shape
            self._begin(pixels.shape[1] + pixels.shape[1] % 2, pixels.shape[0] + pixels.shape[0] % 2)
        if pixels.shape != self._shape:
            raise another_size(frame.name, pixels.shape, self._shape)
        even = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
        self._writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
        self._written += 1

    def finish(self) -> None:
        """Close the video, count its frames and give it its name."""
        if self._writer is None or self._temporary is None:
            return
        self._writer.release()
        counted = _count(self._temporary)
        if counted != self._written:
            self.abort()
            raise ImageError(
                "The video could not be written whole.",
                where=str(self.path),
                found=f"{in_words(counted, 'frame')} in the file",
                expected=f"{self._written}",
                next_step="look whether there is space left, or choose another --codec",
            )
        self._temporary.replace(self.path)

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._writer is not None:
            self._writer.release()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def _begin(self, width: int, height: int) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(VIDEO_SUFFIX, f".{self.path.stem}{_PARTIAL}-", self.path.parent)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        os.close(number)
        self._temporary = Path(name)
        self._temporary.chmod(0o644)
        tried = CODECS if self.codec is None else (self.codec,)
        for codec in tried:
            writer = _writer(self._temporary, codec, self._fps, (width, height))
            if writer.isOpened():
                self._writer, self.codec = writer, codec
                return
            writer.release()
        self.abort()
        raise ImageError(
            "The video cannot be written: the codec is missing.",
            where=str(self.path),
            found=f"an OpenCV that does not encode {' or '.join(tried)} at {width}x{height}",
            expected="a codec that this OpenCV was built with",
            next_step="leave out --codec, or give a folder as --output for PNG frames",
        )


def sink_for(output: Path, source: Source, fps: float | None, codec: str | None) -> Sink:
    """Return where the pictures of ``source`` go: ``output`` ends in .mp4, in the suffix of an image, or in none.

    Raises UsageError where that does not fit the input, is there as something else, or would write over the input.
    """
    suffix = output.suffix.lower()
    if suffix == VIDEO_SUFFIX and source.kind is not Kind.IMAGE:
        _require_free(output, folder=False)
        _require_not_input([output], source)
        return VideoSink(output, fps or source.fps or FOLDER_FPS, codec)
    if suffix in IMAGE_SUFFIXES and source.kind is Kind.IMAGE:
        _require_free(output, folder=False)
        _require_not_input([output], source)
        return ImageSink(output)
    if suffix == "" and source.kind is not Kind.IMAGE:
        _require_free(output, folder=True)
        _require_not_input([output / f"{path.stem}.png" for path in source.files], source)
        names = [path.stem for path in source.files]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(
                "Two frames would get the same file.",
                where=source.description,
                found=", ".join(twice[:4]),
                expected="names that differ in more than their suffix",
            )
        return FolderSink(output)
    raise UsageError(
        "The output does not fit the input.",
        where="--output",
        found=f"{output} for {'an image' if source.kind is Kind.IMAGE else f'a {source.kind}'}",
        expected="a .png, .webp or .jpg for an image; a .mp4, or a folder for PNG frames, for everything else",
    )


def write_whole(path: Path, pixels: Pixels) -> None:
    """Write ``pixels`` to ``path`` so that it is there as a whole or not at all."""
    temporary = path.with_name(f".{path.stem}{_PARTIAL}{path.suffix}")
    try:
        write_image(temporary, pixels)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def another_size(name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> ImageError:
    """Return the error for a frame of another size than the first."""
    return ImageError(
        "The frame has another size than the ones before it.",
        where=f"frame {name}",
        found=f"{found[1]}x{found[0]} pixels",
        expected=f"{expected[1]}x{expected[0]}, as the first frame",
        next_step="bring all frames to one size; a folder of photos goes to a folder without --fuse",
    )


def _require_free(output: Path, *, folder: bool) -> None:
    if output.exists() and output.is_dir() != folder:
        raise UsageError(
            "The output is there as something else.",
            where="--output",
            found=f"{output}, a {'folder' if output.is_dir() else 'file'}",
            expected="a folder, or a new name" if folder else "a file, or a new name",
        )
    nearest = output.absolute().parent
    while not nearest.exists():
        nearest = nearest.parent
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(
            "The output cannot be written.",
            where="--output",
            found=f"{nearest}, " + ("which is not writable" if nearest.is_dir() else "which is no folder"),
            expected="a place in a folder that can be created and written to",
        )


def _require_not_input(written: list[Path], source: Source) -> None:
    taken = {path.resolve() for path in source.files}
    for path in written:
        if path.resolve() in taken:
            raise UsageError(
                "The input would be written over.",
                where="--output",
                found=str(path),
                expected="another place than that of --input",
            )


def _unwritable(path: Path, error: OSError) -> ImageError:
    return ImageError("The video cannot be written.", where=str(path), found=error.strerror or str(error))


def _writer(path: Path, codec: str, fps: float, size: tuple[int, int]) -> Any:
    """Return a writer, open or not; what OpenCV says of codecs that it lacks stays off stderr."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        with contained():
            return cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, size)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _count(path: Path) -> int:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        return int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    finally:
        capture.release()
