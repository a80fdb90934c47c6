"""Synthetic portraits rendered once into a file, and the augmentation that makes training batches of them."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.images.synthetic import GENERATOR_VERSION, synthesize
from deploykit.training.plan import IMAGE_SIZE

Pixels = NDArray[np.uint8]


def _draw(seed: int) -> Pixels:
    cv2.setNumThreads(1)
    portrait = synthesize(seed, IMAGE_SIZE)
    return np.dstack([portrait.image, portrait.mask])


def render(seeds: Sequence[int], folder: Path) -> Pixels:
    """Return portraits (n, 224, 224, 4) of ``seeds``, RGB and mask, from a file in ``folder`` made on first use."""
    path = folder / f"portraits-v{GENERATOR_VERSION}-{seeds[0]}-{len(seeds)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        shape = (len(seeds), IMAGE_SIZE, IMAGE_SIZE, 4)
        store = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            partial, mode="w+", dtype=np.uint8, shape=shape
        )
        # A forked worker would inherit the locks of OpenCV's threads and could wait for them for ever.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            for index, drawn in enumerate(pool.map(_draw, seeds, chunksize=32)):
                store[index] = drawn
        store.flush()
        partial.rename(path)
    portraits: Pixels = np.load(path, mmap_mode="r")
    return portraits


def augment(portrait: Pixels, size: int, rng: np.random.Generator) -> tuple[NDArray[np.float32], Pixels]:
    """Return an image (size, size, 3) of 0..255 and its mask (size, size), moved, turned and recoloured.

    Source of the kinds of change: PortraitNet, section 3.4.
    """
    small = cv2.resize(portrait, (size, size), interpolation=cv2.INTER_AREA) if size < IMAGE_SIZE else portrait
    mask = cv2.resize(portrait[:, :, 3] * np.uint8(255), (size, size), interpolation=cv2.INTER_AREA)
    middle = (size / 2, size / 2)
    matrix = cv2.getRotationMatrix2D(middle, float(rng.normal(0, 7)), float(np.exp(rng.normal(0.05, 0.15))))
    matrix[:, 2] += rng.normal(0, 0.05, 2) * size
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, size - 1], [0, 1, 0], [0, 0, 1]], np.float64)
    frame = (size, size)
    image = cv2.warpAffine(small[:, :, :3], matrix, frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    mask = cv2.warpAffine(mask, matrix, frame, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    gain = (rng.uniform(0.7, 1.35) * rng.normal(1, 0.06, 3)).astype(np.float32)
    shifted = (image.astype(np.float32) - 128) * np.float32(rng.uniform(0.75, 1.3)) + 128
    shifted = shifted * gain + np.float32(rng.normal(0, 8))
    draw = rng.random()
    if draw < 0.08:
        shifted = np.repeat(shifted.mean(axis=2, keepdims=True), 3, axis=2)
    elif draw < 0.16:
        shifted = shifted[:, :, rng.permutation(3)]
    if rng.random() < 0.15:
        shifted = cv2.GaussianBlur(shifted, (3, 3), 0)
    return np.clip(shifted, 0, 255), (mask >= 128).astype(np.uint8)
