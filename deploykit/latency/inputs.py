"""What is fed to a file while it is measured: photos through the recipe's preprocessing, else made-up values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from deploykit.errors import UsageError
from deploykit.images.preprocess import image_paths
from deploykit.images.synthetic import LARGEST, synthesize
from deploykit.recipe import Recipe
from deploykit.records import TensorRecord
from deploykit.targets.base import Array
from deploykit.verify.samples import PORTRAIT_SEED, Sample, draw_samples, feed

INPUT_SEED = 2026
# All of them are held in memory, ready to be run.
MOST_PHOTOS = 32


def photos_in(place: Path | None) -> tuple[Path, ...]:
    """Return the first photos of the folder ``place``, or ``place`` itself; none for None.

    Raises ImageError where there is none.
    """
    return () if place is None else image_paths(place)[:MOST_PHOTOS]


def samples_of(recipe: Recipe, photos: Sequence[Path] = ()) -> tuple[Sample, ...]:
    """Return what a network of ``recipe`` is measured on: ``photos``, else one seeded synthetic portrait."""
    return draw_samples(recipe, photos, noise=0, portraits=0 if photos else 1)


def build_inputs(
    records: Sequence[TensorRecord], recipe: Recipe | None, photos: Sequence[Path] = ()
) -> tuple[dict[str, Array], ...]:
    """Return inputs for ``records``, to be used in turn, from ``recipe`` where it describes exactly these.

    Else they are uniform values of the declared shapes and types. Raises UsageError for ``photos`` that no recipe says
    how to bring into the file.
    """
    if recipe is not None and {item.name for item in recipe.file.inputs} == {record.name for record in records}:
        given = tuple(feed(sample, records, recipe) for sample in samples_of(recipe, photos))
        if all(given[0][record.name].shape == record.shape for record in records):
            return given
    if photos:
        raise UsageError(
            "Nothing says how the file takes photos.",
            where="--images",
            found=", ".join(f"{record.name} {list(record.shape)}" for record in records),
            expected="an artifact that deploykit export wrote, or --recipe with the same inputs",
        )
    rng = np.random.default_rng(INPUT_SEED)
    return ({record.name: _uniform(record, rng) for record in records},)


def save_inputs(inputs: Sequence[Mapping[str, Array]], folder: Path, stem: str) -> tuple[dict[str, str], ...]:
    """Write ``inputs`` as .npy files below ``folder``; return name of tensor → path for each."""
    found = []
    for index, given in enumerate(inputs):
        paths = {}
        for place, (name, value) in enumerate(given.items()):
            path = folder / f"{stem}-{index}-{place}.npy"
            np.save(path, value)
            paths[name] = str(path)
        found.append(paths)
    return tuple(found)


def photos_or_drawn(photos: Sequence[Path], folder: Path) -> tuple[str, ...]:
    """Return the paths of ``photos``; without any, that of a large synthetic portrait written below ``folder``."""
    if photos:
        return tuple(str(path.resolve()) for path in photos)
    path = folder / "portrait.png"
    drawn = synthesize(PORTRAIT_SEED, LARGEST).image
    cv2.imwrite(str(path), np.ascontiguousarray(drawn[:, :, ::-1]))
    return (str(path),)


def _uniform(record: TensorRecord, rng: np.random.Generator) -> Array:
    dtype = np.dtype(record.dtype)
    if dtype.kind == "f":
        return rng.uniform(size=record.shape).astype(dtype)
    # Wider integers are often indices, for which only small ones are safe.
    top = int(np.iinfo(dtype).max) if dtype.kind in "iu" and dtype.itemsize == 1 else 1
    return rng.integers(0, top, size=record.shape, endpoint=True).astype(dtype)
