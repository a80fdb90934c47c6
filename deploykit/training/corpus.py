"""Synthetic portraits, rendered once into a file."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.images.synthetic import GENERATOR_VERSION, synthesize

Pixels = NDArray[np.uint8]


def _draw(size: int, seed: int) -> Pixels:
    cv2.setNumThreads(1)
    portrait = synthesize(seed, size)
    return np.dstack([portrait.image, portrait.mask])


def render(seeds: Sequence[int], folder: Path, size: int) -> Pixels:
    """Return portraits (n, size, size, 4) of ``seeds``, RGB and mask, from a file in ``folder`` made on first use."""
    path = folder / f"portraits-v{GENERATOR_VERSION}-{size}-{seeds[0]}-{len(seeds)}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        shape = (len(seeds), size, size, 4)
        store = np.lib.format.open_memmap(  # type: ignore[no-untyped-call]
            unfinished, mode="w+", dtype=np.uint8, shape=shape
        )
        # A forked worker would inherit the locks of OpenCV's threads and could wait for them for ever.
        with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
            for index, drawn in enumerate(pool.map(partial(_draw, size), seeds, chunksize=32)):
                store[index] = drawn
        store.flush()
        unfinished.rename(path)
    portraits: Pixels = np.load(path, mmap_mode="r")
    return portraits
