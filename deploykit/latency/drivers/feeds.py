"""The arrays that drivers hand to devices, and how they are written for them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from deploykit.targets.base import Array

# Of each subject, by its name: one or more feeds, each tensor name → array in the order of the model's own inputs.
Feeds: TypeAlias = Mapping[str, Sequence[Mapping[str, Array]]]


def first_feed(feeds: Feeds, subject: str) -> Mapping[str, Array]:
    """Return the first feed of ``subject``, empty where there is none."""
    return next(iter(feeds.get(subject, ())), {})


def npy_bytes(array: Array) -> bytes:
    """Return ``array`` as the contents of a ``.npy`` file."""
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()
