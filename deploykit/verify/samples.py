"""What networks and files are compared on: seeded noise, synthetic portraits and the user's photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels, normalise, read_image, resize_pixels
from deploykit.images.synthetic import LARGEST, SMALLEST, synthesize
from deploykit.recipe import Input, Recipe
from deploykit.records import TensorRecord
from deploykit.verify.feedback import first_feedback, likely_feedback
from deploykit.vocab import Layout

NOISE_SEED = 2026
# Far from the seeds that the bundled checkpoints were trained on.
PORTRAIT_SEED = 7_000_000
MOTION_SEED = 2027


@dataclass(frozen=True)
class Sample:
    """One set of inputs: network inputs by name, float32, and for images also their pixels (H, W, 3).

    ``truth`` is the person's true mask (H, W) at the size of the first image, where it is known.
    """

    name: str
    tensors: dict[str, NDArray[np.float32]]
    pixels: dict[str, Pixels]
    picture: bool
    truth: NDArray[np.bool_] | None = None


def draw_samples(
    recipe: Recipe, photos: Sequence[Path] = (), *, noise: int = 1, portraits: int = 2
) -> tuple[Sample, ...]:
    """Return ``noise`` samples of uniform pixels, then synthetic portraits, then one for each of ``photos``.

    An input with feedback holds noise beside noise, the person's own mask moved a little beside a portrait, and the
    value of a first frame beside a photo.
    """
    found = [_sample(recipe, f"noise {index}", None, index) for index in range(noise)]
    largest = max(max(item.shape[-2:]) for item in recipe.file.inputs)
    size = min(max(largest, SMALLEST), LARGEST)
    for index in range(portraits):
        drawn = synthesize(PORTRAIT_SEED + index, size)
        before = likely_feedback(recipe, drawn.mask, np.random.default_rng([MOTION_SEED, index]))
        sample = _sample(recipe, f"portrait {index}", drawn.image, index, before)
        found.append(replace(sample, truth=_fitted_truth(recipe, drawn.mask)))
    first = first_feedback(recipe)
    found.extend(_sample(recipe, path.name, read_image(path), index, first) for index, path in enumerate(photos))
    return tuple(found)


def _fitted_truth(recipe: Recipe, mask: Pixels) -> NDArray[np.bool_] | None:
    """Return ``mask`` (H, W) where the first image input has the photo; None without such an input."""
    image = next((item for item in recipe.file.inputs if item.kind == "image"), None)
    if image is None:
        return None
    resize = image.resize.model_copy(update={"filter": "nearest", "pad_value": 0})
    fitted = resize_pixels(np.repeat(mask[:, :, None], 3, axis=2), image.model_copy(update={"resize": resize}))
    return np.asarray(fitted[:, :, 0] > 0)


def picture_sample(recipe: Recipe, image: Pixels, feedback: Mapping[str, NDArray[np.float32]] | None = None) -> Sample:
    """Return the sample of one photo (H, W, 3) in RGB.

    An input with feedback gets its value in ``feedback``, by name, else that of a first frame; another input that is
    no image gets seeded values.
    """
    return _sample(recipe, "photo", image, 0, first_feedback(recipe) if feedback is None else feedback)


def _sample(
    recipe: Recipe,
    name: str,
    image: Pixels | None,
    index: int,
    feedback: Mapping[str, NDArray[np.float32]] | None = None,
) -> Sample:
    rng = np.random.default_rng([NOISE_SEED, index])
    tensors: dict[str, NDArray[np.float32]] = {}
    pixels: dict[str, Pixels] = {}
    given = feedback or {}
    for item in recipe.file.inputs:
        if item.kind == "tensor":
            noise = rng.uniform(*item.value_range, size=item.shape).astype(np.float32)
            tensors[item.name] = given.get(item.name, noise)
            continue
        pixels[item.name] = _noise(item, rng) if image is None else resize_pixels(image, item)
        tensors[item.name] = normalise(pixels[item.name], item)
    return Sample(name, tensors, pixels, picture=image is not None and bool(pixels))


def _noise(item: Input, rng: np.random.Generator) -> Pixels:
    return rng.integers(0, 256, size=(item.height, item.width, 3), dtype=np.uint8)


def feed(sample: Sample, records: Sequence[TensorRecord], recipe: Recipe) -> dict[str, NDArray[np.generic]]:
    """Return ``sample`` as the file with these input ``records`` takes it: dtype, layout and colour order."""
    orders = {item.name: item.color_order for item in recipe.file.inputs}
    given: dict[str, NDArray[np.generic]] = {}
    for record in records:
        if record.dtype == "uint8" and record.name in sample.pixels:
            pixels = sample.pixels[record.name]
            if record.color_order not in (None, orders[record.name]):
                pixels = pixels[:, :, ::-1]
            image = pixels[None] if record.layout is Layout.NHWC else pixels.transpose(2, 0, 1)[None]
            given[record.name] = np.ascontiguousarray(image)
            continue
        tensor = sample.tensors[record.name]
        if record.layout is Layout.NHWC and tensor.ndim == 4:
            tensor = tensor.transpose(0, 2, 3, 1)
        given[record.name] = np.ascontiguousarray(_in_numbers_of(record, tensor))
    return given


def read_back(
    outputs: Mapping[str, NDArray[np.generic]], records: Sequence[TensorRecord]
) -> dict[str, NDArray[np.generic]]:
    """Return the ``outputs`` of a file, as its ``records`` declare them, as real numbers in the network's NCHW."""
    found = {}
    for record in records:
        value = outputs[record.name]
        if record.scale is not None:
            value = ((value.astype(np.float32) - record.zero_point) * np.float32(record.scale)).astype(np.float32)
        found[record.name] = value.transpose(0, 3, 1, 2) if record.layout is Layout.NHWC and value.ndim == 4 else value
    return found


def _in_numbers_of(record: TensorRecord, tensor: NDArray[np.float32]) -> NDArray[np.generic]:
    """Return ``tensor`` in the dtype of ``record``: integers stand for real numbers where it states a scale."""
    if record.scale is None:
        return tensor.astype(record.dtype)
    limits = np.iinfo(record.dtype)
    integers = np.rint(tensor / np.float32(record.scale)) + record.zero_point
    return np.asarray(np.clip(integers, limits.min, limits.max), dtype=record.dtype)
