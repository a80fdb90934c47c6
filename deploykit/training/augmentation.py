"""The papers' deformations and textures: what happens to a portrait before a network is trained on it.

A deformation moves the portrait, image and mask alike. A texture changes colours and sharpness and moves nothing, so
one mask is true of both views. PortraitNet, section 4.2; RCRNet, section 4.2.1, and SINet, section 4, follow it.

Every operation happens with one ``probability`` of its own, as the texts say. PortraitNet's released code departs:
it always turns, scales and shifts, applies the four enhancements together or not at all, and draws the deviation of
the noise from 0 to 10.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Pixels = NDArray[np.uint8]
# What lies outside the picture: grey in the image, as in PortraitNet's code, and background in the mask.
BORDER_GREY = 128
# The weights of Pillow's SMOOTH filter, which its sharpness enhancement blends with: the papers' code calls Pillow.
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


@dataclass(frozen=True)
class Ranges:
    """From where to where each operation is drawn, uniformly; equal ends switch an operation to that constant.

    ``rotation`` is in degrees, ``resizing`` a factor, ``translation`` a share of the side of the picture. Factors of
    colour, brightness, contrast and sharpness are 1 where nothing changes, and 0 means grey, black, one mean grey and
    smoothed. ``noise_sigma`` is in units of 8-bit pixels; ``blur_kernels`` in pixels, empty for no blur.
    """

    probability: float = 0.5
    rotation: tuple[float, float] = (-45.0, 45.0)
    resizing: tuple[float, float] = (0.5, 1.5)
    translation: tuple[float, float] = (-0.25, 0.25)
    color: tuple[float, float] = (0.4, 1.7)
    brightness: tuple[float, float] = (0.4, 1.7)
    contrast: tuple[float, float] = (0.6, 1.5)
    sharpness: tuple[float, float] = (0.8, 1.3)
    blur_kernels: tuple[int, ...] = (3, 5)
    noise_sigma: float = 10.0


PORTRAITNET = Ranges()
# ELB, section 3.2: flips, contrast and brightness.
ELB = Ranges(
    rotation=(0.0, 0.0),
    resizing=(1.0, 1.0),
    translation=(0.0, 0.0),
    color=(1.0, 1.0),
    brightness=(0.8, 1.2),
    contrast=(0.8, 1.2),
    sharpness=(1.0, 1.0),
    blur_kernels=(),
    noise_sigma=0.0,
)
# The SAPPM report, section 4: resizing, cropping, flips and photometric distortion, without ranges. The factors are
# those of its released configuration and of the framework below it, shifts stand for the crop, and the hue is kept.
SAPPM = Ranges(
    rotation=(0.0, 0.0),
    resizing=(0.5, 1.5),
    color=(0.5, 1.5),
    brightness=(0.75, 1.25),
    contrast=(0.5, 1.5),
    sharpness=(1.0, 1.0),
    blur_kernels=(),
    noise_sigma=0.0,
)
AUGMENTATIONS: dict[str, Ranges] = {
    "sinet": PORTRAITNET,
    "portraitnet": PORTRAITNET,
    "mobilenetv3_sappm": SAPPM,
    "elb": ELB,
    "rcrnet": PORTRAITNET,
}


@dataclass(frozen=True, eq=False)
class Augmented:
    """Two views of one portrait and the mask of both.

    ``deformed`` and ``textured`` are (size, size, 3), RGB, float32 of 0..255; ``mask`` is (size, size), uint8, 0 or 1.
    """

    deformed: NDArray[np.float32]
    textured: NDArray[np.float32]
    mask: Pixels


def augment(portrait: Pixels, size: int, rng: np.random.Generator, ranges: Ranges = PORTRAITNET) -> Augmented:
    """Return both views of ``portrait`` (H, W, 4), RGB and a mask of 0 and 1, resized to ``size`` x ``size``.

    The same state of ``rng`` gives the same pixels. With PortraitNet's ranges a portrait costs about 2 ms of one core
    at 224 and 15 ms at 512.
    """
    image, mask = deform(portrait[:, :, :3], portrait[:, :, 3], size, rng, ranges)
    return Augmented(image.astype(np.float32), texture(image, rng, ranges), mask)


def deform(
    image: Pixels, mask: Pixels, size: int, rng: np.random.Generator, ranges: Ranges = PORTRAITNET
) -> tuple[Pixels, Pixels]:
    """Return ``image`` (H, W, 3) and ``mask`` (H, W) of 0 and 1, resized to ``size``, flipped, turned, scaled, shifted.

    One warp does all of it. A pixel of the mask is 1 where the portrait covers half of it or more.
    """
    coverage = mask * np.uint8(255)
    if (size, size) != mask.shape:
        smaller = size < min(mask.shape)
        image = _resized(image, size, smaller)
        coverage = _resized(coverage, size, smaller)
    matrix = deformation_matrix(size, rng, ranges)
    if not np.array_equal(matrix, np.eye(3)):
        grey = (BORDER_GREY,) * 3
        frame, warp = (size, size), matrix[:2]
        image = cv2.warpAffine(image, warp, frame, flags=cv2.INTER_LINEAR, borderValue=grey)
        coverage = cv2.warpAffine(coverage, warp, frame, flags=cv2.INTER_LINEAR, borderValue=0)
    return image, (coverage >= 128).astype(np.uint8)


def deformation_matrix(size: int, rng: np.random.Generator, ranges: Ranges = PORTRAITNET) -> NDArray[np.float64]:
    """Return the 3 x 3 map from a pixel of the picture to its place after the deformation, about the middle."""
    flip = rng.random() < ranges.probability
    angle = math.radians(_drawn(rng, ranges.rotation, 0.0, ranges.probability))
    factor = _drawn(rng, ranges.resizing, 1.0, ranges.probability)
    shift = [0.0, 0.0]
    if rng.random() < ranges.probability:
        shift = [size * float(rng.uniform(*ranges.translation)) for _ in range(2)]
    middle = (size - 1) / 2
    to_middle = np.array([[1, 0, -middle], [0, 1, -middle], [0, 0, 1]])
    cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
    # Positive angles turn anticlockwise as the picture is seen: the second axis of an image points down.
    turned = np.array([[cosine, sine, shift[0]], [-sine, cosine, shift[1]], [0, 0, 1]])
    mirrored = np.diag([-1.0 if flip else 1.0, 1.0, 1.0])
    from_middle = np.array([[1, 0, middle], [0, 1, middle], [0, 0, 1]])
    return np.asarray(from_middle @ turned @ mirrored @ to_middle, np.float64)


def texture(image: Pixels, rng: np.random.Generator, ranges: Ranges = PORTRAITNET) -> NDArray[np.float32]:
    """Return ``image`` (H, W, 3), RGB, with other colour, brightness, contrast, sharpness, then blurred, then noisy.

    float32 of 0..255. The order is that of PortraitNet's code; each of the first five steps rounds to 8 bits, as
    Pillow's enhancements do.
    """
    for enhance, bounds in (
        (change_color, ranges.color),
        (change_brightness, ranges.brightness),
        (change_contrast, ranges.contrast),
        (change_sharpness, ranges.sharpness),
    ):
        factor = _drawn(rng, bounds, 1.0, ranges.probability)
        if factor != 1.0:
            image = enhance(image, factor)
    if ranges.blur_kernels and rng.random() < ranges.probability:
        image = blur(image, int(rng.choice(ranges.blur_kernels)), int(rng.integers(3)))
    values = image.astype(np.float32)
    if ranges.noise_sigma and rng.random() < ranges.probability:
        # A table look-up is four times as fast as drawing normal values, and noise is half of the cost of a texture.
        drawn = rng.integers(0, len(_normal_quantiles()), values.shape, np.uint16)
        values += np.float32(ranges.noise_sigma) * _normal_quantiles().take(drawn)
        np.clip(values, 0, 255, out=values)
    return values


def change_color(image: Pixels, factor: float) -> Pixels:
    """Return ``image`` with the distance of every pixel from its grey times ``factor``."""
    return _blended(image, cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), factor)


def change_brightness(image: Pixels, factor: float) -> Pixels:
    """Return ``image`` times ``factor``."""
    return np.asarray(cv2.convertScaleAbs(image, alpha=factor), np.uint8)


def change_contrast(image: Pixels, factor: float) -> Pixels:
    """Return ``image`` with the distance of every value from the mean grey of the picture times ``factor``."""
    mean = round(float(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]))
    return _blended(image, np.full_like(image, mean), factor)


def change_sharpness(image: Pixels, factor: float) -> Pixels:
    """Return ``image`` with its distance from its smoothed self times ``factor``: above 1 sharper, below 1 softer."""
    return _blended(image, cv2.filter2D(image, -1, SMOOTH), factor)


def blur(image: Pixels, kernel: int, kind: int) -> Pixels:
    """Return ``image`` blurred by an odd ``kernel``; ``kind`` 0 is Gaussian, 1 median, 2 box, the kinds of the code."""
    if kind == 0:
        return np.asarray(cv2.GaussianBlur(image, (kernel, kernel), 0), np.uint8)
    if kind == 1:
        return np.asarray(cv2.medianBlur(image, kernel), np.uint8)
    return np.asarray(cv2.blur(image, (kernel, kernel)), np.uint8)


@cache
def _normal_quantiles() -> NDArray[np.float32]:
    """Return 65536 equally likely values of the standard normal distribution, in order."""
    steps = 65536
    return np.asarray(ndtri((np.arange(steps) + 0.5) / steps), np.float32)


def _drawn(rng: np.random.Generator, bounds: tuple[float, float], otherwise: float, probability: float) -> float:
    return float(rng.uniform(*bounds)) if rng.random() < probability else otherwise


def _blended(image: Pixels, other: Pixels, factor: float) -> Pixels:
    return np.asarray(cv2.addWeighted(image, factor, other, 1 - factor, 0), np.uint8)


def _resized(pixels: Pixels, size: int, smaller: bool) -> Pixels:
    method = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(pixels, (size, size), interpolation=method), np.uint8)
