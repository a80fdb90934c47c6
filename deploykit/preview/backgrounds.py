"""What is put behind the person: a picture, a colour, the blurred frame itself, or a chequered ground."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import UsageError
from deploykit.images.preprocess import IMAGE_SUFFIXES, Pixels, read_image

FloatArray = NDArray[np.float32]
_COLOUR = re.compile(r"#([0-9a-fA-F]{6})")
# Blur is made on a frame whose longer side has so many pixels, with a standard deviation in those.
_BLURRED_SIDE, _BLUR = 160, 5.0
# What a pixel of the person counts for in the blur, so that the mean is defined inside of him or her.
_PERSON = 1e-3
_TILE = 12


class Background(Protocol):
    """Something to be put behind a person."""

    def behind(self, frame: Pixels, alpha: FloatArray) -> Pixels:
        """Return the ground (H, W, 3) for ``frame`` (H, W, 3) with the person at ``alpha`` (H, W)."""
        ...


class Still(ABC):
    """A ground that is the same for all frames of one size."""

    def __init__(self) -> None:
        self._made: Pixels | None = None

    def behind(self, frame: Pixels, alpha: FloatArray) -> Pixels:
        """Return the ground at the size of ``frame``."""
        del alpha
        if self._made is None or self._made.shape != frame.shape:
            self._made = self.made(*frame.shape[:2])
        return self._made

    @abstractmethod
    def made(self, height: int, width: int) -> Pixels:
        """Return the ground (height, width, 3)."""


class Chequered(Still):
    """The two greys that stand for nothing."""

    def made(self, height: int, width: int) -> Pixels:
        """Return tiles of 12 pixels."""
        rows, columns = np.indices((height, width))
        grey = np.where((rows // _TILE + columns // _TILE) % 2 == 0, 236, 206).astype(np.uint8)
        return np.asarray(cv2.merge([grey, grey, grey]), np.uint8)


class Colour(Still):
    """One colour."""

    def __init__(self, rgb: tuple[int, int, int]) -> None:
        super().__init__()
        self.rgb = rgb

    def made(self, height: int, width: int) -> Pixels:
        """Return a sheet of the colour."""
        return np.full((height, width, 3), self.rgb, np.uint8)


class Scene(Still):
    """A picture that covers the frame; what is too much of it is cut off on both sides alike."""

    def __init__(self, picture: Pixels) -> None:
        super().__init__()
        self._picture = picture

    def made(self, height: int, width: int) -> Pixels:
        """Return the middle of the picture at this size, its shape kept."""
        ratio = max(height / self._picture.shape[0], width / self._picture.shape[1])
        rows, columns = round(height / ratio), round(width / ratio)
        top, left = (self._picture.shape[0] - rows) // 2, (self._picture.shape[1] - columns) // 2
        cut = self._picture[top : top + max(rows, 1), left : left + max(columns, 1)]
        filtered = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(cut, (width, height), interpolation=filtered), np.uint8)


class Blurred:
    """The frame without its details; the person's own colours stay out of it, so that no halo surrounds them."""

    def behind(self, frame: Pixels, alpha: FloatArray) -> Pixels:
        """Return the blurred surroundings: means weighted by how much a pixel is not the person."""
        height, width = frame.shape[:2]
        scale = min(1.0, _BLURRED_SIDE / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
        around = np.maximum(1 - cv2.resize(alpha, size, interpolation=cv2.INTER_AREA), np.float32(_PERSON))
        summed = cv2.GaussianBlur(small * around[:, :, None], (0, 0), _BLUR)
        mean = summed / cv2.GaussianBlur(around, (0, 0), _BLUR)[:, :, None]
        ground = np.clip(mean + 0.5, 0, 255).astype(np.uint8)
        return np.asarray(cv2.resize(ground, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def background_of(text: str) -> Background:
    """Return the background that ``text`` names: ``blur``, ``#rrggbb``, or the path of an image.

    Raises UsageError for something else, ImageError for a file that is no image.
    """
    if text == "blur":
        return Blurred()
    colour = _COLOUR.fullmatch(text)
    if colour:
        red, green, blue = bytes.fromhex(colour[1])
        return Colour((red, green, blue))
    if text.startswith("#") or not (Path(text).exists() or Path(text).suffix.lower() in IMAGE_SUFFIXES):
        raise UsageError(
            "The background is not understood.",
            where="--background",
            found=text,
            expected="the path of an image, #rrggbb, or blur",
        )
    return Scene(read_image(Path(text)))
