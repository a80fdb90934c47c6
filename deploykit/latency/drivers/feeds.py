"""The arrays that drivers hand to devices, and how they are written for them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from deploykit.artifact import MANIFEST
from deploykit.chatter import contained
from deploykit.latency.inputs import build_inputs
from deploykit.latency.subjects import Subject
from deploykit.recipe import Recipe, recipe_from_table
from deploykit.records import TensorRecord
from deploykit.targets.base import Array, Runtime, require_fixed_shapes
from deploykit.targets.table import TARGETS, part
from deploykit.vocab import Target

# Of each subject, by its name: one or more feeds, each tensor name → array in the order of the model's own inputs.
Feeds: TypeAlias = Mapping[str, Sequence[Mapping[str, Array]]]


def make_feeds(subjects: Sequence[Subject], recipe: Recipe | None, photos: Sequence[Path]) -> Feeds:
    """Return the feeds of ``subjects``, as ``build_inputs`` makes them; none where nothing here can read the file.

    Raises:
        ArtifactError: a damaged file, or one whose inputs have no fixed shape.
        UsageError: photos for a file that no recipe describes.
    """
    return {subject.name: _feeds(subject, recipe, photos) for subject in subjects}


def _feeds(subject: Subject, recipe: Recipe | None, photos: Sequence[Path]) -> tuple[dict[str, Array], ...]:
    if TARGETS[subject.target].missing():
        return ()
    artifact = subject.artifact
    if artifact is not None and artifact.recipe_table:
        recipe = recipe_from_table(artifact.recipe_table, subject.path.parent / MANIFEST)
    with contained():
        runtime: Runtime
        with part(subject.target, "runtime").open_artifact(subject.path, 1) as runtime:
            require_fixed_shapes(subject.path, runtime.inputs)
            records = runtime.inputs
    if subject.target is Target.TFLITE:
        records = _in_model_order(subject.path, records)
    made = build_inputs(records, recipe, photos)
    return tuple({record.name: feed[record.name] for record in records} for feed in made)


def _in_model_order(path: Path, records: Sequence[TensorRecord]) -> tuple[TensorRecord, ...]:
    """Return ``records`` in the order of the model's own inputs; a signature lists them by name."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path))
    signatures = list(interpreter.get_signature_list())
    if not signatures:
        return tuple(records)
    named = interpreter.get_signature_runner(signatures[0]).get_input_details()
    order = [item["index"] for item in interpreter.get_input_details()]
    return tuple(sorted(records, key=lambda record: order.index(named[record.name]["index"])))


def first_feed(feeds: Feeds, subject: str) -> Mapping[str, Array]:
    """Return the first feed of ``subject``, empty where there is none."""
    return next(iter(feeds.get(subject, ())), {})


def npy_bytes(array: Array) -> bytes:
    """Return ``array`` as the contents of a ``.npy`` file."""
    written = io.BytesIO()
    np.save(written, array, allow_pickle=False)
    return written.getvalue()
