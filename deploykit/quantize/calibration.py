"""Calibration images: sampled, checked, hashed, and made into the inputs of a network.

Ranges are estimated on three quarters of them; what stays in float is decided on the last quarter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from deploykit.errors import ImageError, UsageError
from deploykit.images.preprocess import Pixels, image_paths, read_image
from deploykit.images.synthetic import LARGEST, SMALLEST, synthesize
from deploykit.recipe import Recipe
from deploykit.records import Calibration
from deploykit.verify.feedback import fed_inputs, likely_feedback
from deploykit.verify.samples import Sample, draw_samples, picture_sample

# Apart from the seeds of training, of verification and of evaluation.
FIRST_SEED = 3_000_000
FEWEST = 8
DEFAULT_IMAGES = 32
SAMPLING_SEED = 2028
# Standard deviation of the pixels, 0 to 255, below which a picture shows nothing.
FLATTEST = 2.0
# Where no pixel of any image is brighter, these are classes or were normalised.
FEW_LEVELS = 8
SHOWN = 5
# Mean brightness, 0 to 255, of a set of photos: beyond these it was normalised already, or is no set of photos.
DARKEST, BRIGHTEST = 16.0, 240.0


@dataclass(frozen=True)
class CalibrationSet:
    """Calibration images as inputs of a network: those that ``ranges`` come from, and those that ``judge``."""

    ranges: tuple[Sample, ...]
    judge: tuple[Sample, ...]
    record: Calibration


def calibration_set(recipe: Recipe, folder: Path | None = None, count: int = DEFAULT_IMAGES) -> CalibrationSet:
    """Return ``count`` images of ``folder``, sampled by a fixed seed; without one, synthetic portraits.

    Raises UsageError for fewer than ``FEWEST``, ImageError for images that cannot be read, are constant, or are
    unlike photos of 0 to 255, all of them named.
    """
    if count < FEWEST:
        raise UsageError(
            "Too few calibration images.", where="--calibration-images", found=str(count), expected=f"at least {FEWEST}"
        )
    judging = max(2, count // 4)
    images = _drawn(recipe, count, judging) if folder is None else _read(folder, count)
    noted = _checked(images, folder)
    samples = [_sample(recipe, name, image, index, folder is None) for index, (name, image) in enumerate(images)]
    digest = hashlib.sha256()
    for name, image in images:
        digest.update(f"{name} {image.shape}\n".encode())
        digest.update(np.ascontiguousarray(image).tobytes())
    judging = max(2, len(samples) // 4)
    source = "synthetic portraits" if folder is None else folder.name
    record = Calibration(
        source=source,
        images=len(samples),
        judging=judging,
        sha256=digest.hexdigest(),
        names=tuple(name for name, _ in images),
        notes=noted,
    )
    return CalibrationSet(tuple(samples[:-judging]), tuple(samples[-judging:]), record)


def _drawn(recipe: Recipe, count: int, judging: int) -> list[tuple[str, Pixels]]:
    """Return ``count`` synthetic portraits: harsh ones for ranges, and the last ``judging`` as they are."""
    largest = max(item.shape[-1] for item in recipe.file.inputs)
    size = min(max(largest, SMALLEST), LARGEST)
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    harsh = [(f"portrait {seed}, varied", _varied(seed, size)) for seed in seeds[: count - judging]]
    return harsh + [(f"portrait {seed}", synthesize(seed, size).image) for seed in seeds[count - judging :]]


def _varied(seed: int, size: int) -> Pixels:
    """Return a synthetic portrait as a harsher camera sees it: contrast, cast, noise and texture beyond the training's.

    Real photos take activations up to half further than plain synthetic portraits do; without this they saturate.
    """
    rng = np.random.default_rng([SAMPLING_SEED, seed])
    pixels = synthesize(seed, size).image.astype(np.float64)
    if rng.random() < 0.5:
        pixels = (pixels - 128) * rng.uniform(0.5, 1.6) + 128 + rng.uniform(-50, 50)
    if rng.random() < 0.5:
        pixels = pixels + rng.normal(0, rng.uniform(2, 25), pixels.shape)
    if rng.random() < 0.3:
        pixels = pixels * rng.uniform(0.7, 1.3, 3)
    if rng.random() < 0.5:
        cells = rng.normal(0, 1, (*(int(n) for n in rng.integers(6, 80, 1).repeat(2)), 3)).astype(np.float32)
        texture = cv2.resize(cells, (size, size), interpolation=cv2.INTER_CUBIC)
        pixels = pixels + texture * rng.uniform(5, 35)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _read(folder: Path, count: int) -> list[tuple[str, Pixels]]:
    paths = image_paths(folder)
    if len(paths) < FEWEST:
        raise UsageError(
            "Too few calibration images.",
            where=str(folder),
            found=f"{len(paths)} image{'' if len(paths) == 1 else 's'}",
            expected=f"at least {FEWEST}, of the kind that the network will see; 32 or more are better",
            next_step="add photos, or leave --calibration out for synthetic portraits",
        )
    chosen = np.random.default_rng(SAMPLING_SEED).permutation(len(paths))[:count]
    found, faults = [], []
    for index in sorted(chosen):
        try:
            found.append((paths[index].name, read_image(paths[index])))
        except ImageError as error:
            faults.append(f"{paths[index].name}: {error.found or error.message}")
    if faults:
        raise ImageError(
            "Calibration images cannot be read.",
            where=str(folder),
            found=_some(faults),
            expected="photos",
            next_step="remove them from the folder",
        )
    return found


def _some(names: Sequence[str]) -> str:
    """Return the first of ``names``, and how many more there are."""
    return "; ".join(names[:SHOWN]) + (f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _checked(images: Sequence[tuple[str, Pixels]], folder: Path | None) -> tuple[str, ...]:
    """Return what is odd about ``images``; ImageError where ranges would come from nothing, or from no photos."""
    where = None if folder is None else str(folder)
    mean = float(np.mean([image.mean() for _, image in images]))
    largest = max(int(image.max()) for _, image in images)
    if largest <= FEW_LEVELS:
        raise ImageError(
            "The calibration images are unlike photos.",
            where=where,
            found=f"no pixel above {largest} in all {len(images)} of them",
            expected="0 to 255: photos as a camera gives them, not normalised ones, nor masks",
            next_step="give the photos before any preprocessing: the recipe's is applied to them",
        )
    flat = [name for name, image in images if float(image.std(axis=(0, 1)).max()) < FLATTEST]
    if flat:
        raise ImageError(
            "Calibration images show nothing.",
            where=where,
            found=f"{len(flat)} of {len(images)} are of one colour: {_some(flat)}",
            expected="photos with something on them",
            next_step="remove them from the folder",
        )
    if not DARKEST <= mean <= BRIGHTEST:
        raise ImageError(
            "The calibration images are unlike photos.",
            where=where,
            found=f"a mean pixel of {mean:.1f}",
            expected=f"{DARKEST:g} to {BRIGHTEST:g} of 0 to 255: photos as a camera gives them, not normalised ones",
            next_step="give the photos before any preprocessing: the recipe's is applied to them",
        )
    small = min(max(image.shape[:2]) for _, image in images)
    same = len({hashlib.sha256(image.tobytes()).digest() for _, image in images})
    if same < FEWEST:
        raise UsageError(
            "Too few calibration images.",
            where=where,
            found=f"{same} different image{'' if same == 1 else 's'} among {len(images)}",
            expected=f"at least {FEWEST} different ones; 32 or more are better",
            next_step="add photos, or leave --calibration out for synthetic portraits",
        )
    notes = [] if same == len(images) else [f"{len(images) - same} of {len(images)} calibration images are copies"]
    return (*notes, *([f"the smallest calibration image has {small} pixels a side"] if small < SMALLEST else []))


def _sample(recipe: Recipe, name: str, image: Pixels, index: int, drawn: bool) -> Sample:
    if not any(item.kind == "image" for item in recipe.file.inputs):
        return draw_samples(recipe, noise=index + 1, portraits=0)[index]
    feedback = None
    if drawn and fed_inputs(recipe):
        seed = FIRST_SEED + index
        mask = synthesize(seed, image.shape[0]).mask
        feedback = likely_feedback(recipe, mask, np.random.default_rng([SAMPLING_SEED, seed, 1]))
    return picture_sample(recipe, image, feedback)
