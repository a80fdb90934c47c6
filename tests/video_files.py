"""Videos made for tests: written by OpenCV, cut off, and with the index in front as for the web."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np


def moving_frames(count: int, height: int = 96, width: int = 128, step: int = 3) -> list[np.ndarray]:
    """Return RGB frames cut out of one textured picture, each ``step`` columns further to the right."""
    rng = np.random.default_rng(4)
    wide = rng.integers(0, 256, (height, width + step * count, 3), dtype=np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(wide, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    return [np.ascontiguousarray(smooth[:, step * index : step * index + width]) for index in range(count)]


def write_video(path: Path, frames: list[np.ndarray], fps: float = 12.5, codec: str = "mp4v") -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[np.ndarray], float]:
    """Return all frames in RGB and the rate."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = []
    while True:
        read, pixels = capture.read()
        if not read:
            break
        frames.append(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return frames, fps


def index_first(content: bytes) -> bytes:
    """Return an MP4 with its index before its frames, so that the beginning alone can be played."""
    boxes = {}
    place = 0
    while place < len(content):
        size, name = struct.unpack(">I4s", content[place : place + 8])
        if size == 1:
            (size,) = struct.unpack(">Q", content[place + 8 : place + 16])
        boxes[name] = content[place : place + size]
        place += size
    index = bytearray(boxes[b"moov"])
    table = index.index(b"stco") + 8
    (entries,) = struct.unpack(">I", index[table : table + 4])
    for entry in range(table + 4, table + 4 + 4 * entries, 4):
        (offset,) = struct.unpack(">I", index[entry : entry + 4])
        index[entry : entry + 4] = struct.pack(">I", offset + len(index))
    return boxes[b"ftyp"] + bytes(index) + b"".join(boxes[name] for name in boxes if name not in (b"ftyp", b"moov"))
