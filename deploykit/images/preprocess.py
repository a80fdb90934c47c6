"""From a photo on disk to the tensor that the network takes, exactly as the recipe says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.errors import ImageError
from deploykit.recipe import Input
from deploykit.vocab import ColorOrder

Pixels: TypeAlias = NDArray[np.uint8]
FloatArray: TypeAlias = NDArray[np.float32]
Level = TypeVar("Level", bound=np.generic)

_FILTERS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
}
_SIGNATURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"RIFF": "WebP",
    b"II*": "TIFF",
    b"MM\0*": "TIFF",
}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})


def read_image(path: Path) -> Pixels:
    """Return the photo at ``path`` as RGB pixels (H, W, 3); rotation flags of cameras are applied.

    Raises ImageError where there is no file or it is not an image.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "nothing"
        raise ImageError("The image cannot be read.", where=str(path), found=found, expected="an image file")
    try:
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    except OSError as error:
        raise ImageError("The image cannot be read.", where=str(path), found=error.strerror) from error
    try:
        with _without_warnings():
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    except cv2.error as error:
        image = None
        too_large = "MAX_IMAGE" in str(error)
    else:
        too_large = False
    if image is None:
        raise ImageError(
            "The image cannot be decoded.",
            where=str(path),
            found="more pixels than an image may have here" if too_large else _undecodable(encoded),
            expected="PNG, JPEG, BMP, WebP or TIFF",
        )
    return np.ascontiguousarray(image[:, :, ::-1])


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep what OpenCV says about a damaged file from stderr: the error says it."""
    before = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(before)


def _undecodable(encoded: NDArray[np.uint8]) -> str:
    content = encoded.tobytes()
    if not content:
        return "an empty file"
    try:
        with _without_warnings():
            as_stored = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
    except cv2.error:
        as_stored = None
    if as_stored is not None and as_stored.dtype != np.uint8:
        return f"pixels of type {as_stored.dtype}, not whole numbers from 0 to 255"
    kind = next((name for first, name in _SIGNATURES.items() if content.startswith(first)), None)
    if kind is None:
        return f"{len(content)} bytes of no image format that OpenCV knows"
    return f"{len(content)} bytes that begin as {kind} and are cut off or damaged"


def image_paths(place: Path) -> tuple[Path, ...]:
    """Return the image files of the folder ``place`` in order of name, or ``place`` itself if it is an image file.

    Raises ImageError where there is none.
    """
    endings = "files ending in " + ", ".join(sorted(IMAGE_SUFFIXES))
    if place.is_file() and place.suffix.lower() in IMAGE_SUFFIXES:
        return (place,)
    if not place.is_dir():
        raise ImageError(
            "The images cannot be read.",
            where=str(place),
            found="a file of another kind" if place.exists() else "no such file or folder",
            expected=f"an image, or a folder of {endings}",
        )
    paths = tuple(p for p in sorted(place.iterdir()) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not paths:
        below = next((p for p in sorted(place.rglob("*")) if p.suffix.lower() in IMAGE_SUFFIXES), None)
        raise ImageError(
            "The folder holds no images.",
            where=str(place),
            found="none of its own"
            if below
            else "an empty folder"
            if not any(place.iterdir())
            else "other files alone",
            expected=endings,
            next_step=f"name the folder that holds them, such as {below.parent}" if below else None,
        )
    return paths


def resize_pixels(image: Pixels, spec: Input) -> Pixels:
    """Return ``image`` (H, W, 3, RGB) at the input's size and in its colour order, still 0 to 255."""
    height, width = spec.height, spec.width
    interpolation = _FILTERS[spec.resize.filter]
    if spec.resize.rule == "letterbox":
        rows, columns = image.shape[:2]
        ratio = min(height / rows, width / columns)
        size = (max(1, round(columns * ratio)), max(1, round(rows * ratio)))
        resized = cv2.resize(image, size, interpolation=interpolation)
        canvas = np.full((height, width, 3), spec.resize.pad_value, dtype=np.uint8)
        top, left = (height - size[1]) // 2, (width - size[0]) // 2
        canvas[top : top + size[1], left : left + size[0]] = resized
        fitted: Pixels = canvas
    else:
        fitted = np.asarray(cv2.resize(image, (width, height), interpolation=interpolation), dtype=np.uint8)
    ordered = fitted[:, :, ::-1] if spec.color_order is ColorOrder.BGR else fitted
    return np.ascontiguousarray(ordered)


def normalise(pixels: Pixels | NDArray[np.floating], spec: Input) -> FloatArray:
    """Return the network's input (1, 3, H, W) for ``pixels`` (H, W, 3), 0 to 255, in the input's colour order."""
    mean = np.asarray(spec.mean, dtype=np.float64)
    scale = np.asarray(spec.scale, dtype=np.float64)
    values = (pixels.astype(np.float64) - mean) * scale
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None].astype(np.float32))


def preprocess(image: Pixels, spec: Input) -> FloatArray:
    """Return the network's input (1, 3, H, W) for a photo (H, W, 3) in RGB."""
    return normalise(resize_pixels(image, spec), spec)


def fit_mask_to_photo(mask: NDArray[np.generic], spec: Input, height: int, width: int) -> Pixels:
    """Return ``mask`` (h, w) at the size of the photo it was made from, letterbox borders cut away."""
    fitted = _without_letterbox(np.asarray(mask, dtype=np.uint8), spec, height, width)
    return np.asarray(cv2.resize(fitted, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.uint8)


def fit_alpha_to_photo(alpha: NDArray[np.floating], spec: Input, height: int, width: int) -> FloatArray:
    """Return ``alpha`` (h, w), 0 to 1, at the size of its photo, bilinear, letterbox borders cut away."""
    fitted = _without_letterbox(np.asarray(alpha, dtype=np.float32), spec, height, width)
    return np.asarray(cv2.resize(fitted, (width, height), interpolation=cv2.INTER_LINEAR), dtype=np.float32)


def _without_letterbox(mask: NDArray[Level], spec: Input, height: int, width: int) -> NDArray[Level]:
    """Return the part of ``mask`` (h, w) that shows the photo of (``height``, ``width``)."""
    if spec.resize.rule != "letterbox":
        return mask
    rows, columns = mask.shape
    ratio = min(rows / height, columns / width)
    inner = (max(1, round(height * ratio)), max(1, round(width * ratio)))
    top, left = (rows - inner[0]) // 2, (columns - inner[1]) // 2
    return mask[top : top + inner[0], left : left + inner[1]]
