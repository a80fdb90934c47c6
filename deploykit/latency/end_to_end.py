"""From a decoded photo to the person over another background, step by step, as something to measure.

Every step is the one that ``deploykit run`` takes, in Python: an application's own code for them may be faster, and the
network's inference is the same.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from deploykit.artifact import MANIFEST, read_artifact
from deploykit.errors import RecipeError
from deploykit.images.preprocess import Pixels, fit_mask_to_photo, read_image
from deploykit.latency.eager import load_network_of
from deploykit.recipe import Input, Output, Recipe, recipe_from_table
from deploykit.targets.base import Array, Runtime
from deploykit.targets.table import part
from deploykit.verify.contract import classes_in
from deploykit.verify.reference import as_tensors, name_outputs
from deploykit.verify.samples import Sample, feed, picture_sample, read_back
from deploykit.vocab import OutputKind

FILE_OPENER = "deploykit.latency.end_to_end:open_file"
NETWORK_OPENER = "deploykit.latency.end_to_end:open_network"
STEPS = ("preprocessing", "inference", "mask", "composite")
# What is shown behind the person: any colour costs the same.
_BACKGROUND = (64, 128, 64)


@dataclass(frozen=True)
class Opened:
    """What does the inference: ``infer`` takes what ``prepare`` returns, ``read`` turns it into name → (1, C, H, W)."""

    recipe: Recipe
    runtime: str
    prepare: Callable[[Sample], Any]
    infer: Callable[[Any], Mapping[str, Array]]
    read: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    kind: OutputKind
    close: Callable[[], object]


def require_photos(recipe: Recipe) -> tuple[Input, Output]:
    """Return the image that a network of ``recipe`` takes and the output that gives the mask, or raise RecipeError."""
    photos = [item for item in recipe.file.inputs if item.kind == "image"]
    others = [item for item in recipe.file.inputs if item.kind != "image" and item.feedback is None]
    scored = [output for output in recipe.deployed() if len(output.classes) > 1]
    if len(photos) != 1 or others or not scored:
        raise RecipeError(
            "The network cannot be measured end to end.",
            where=str(recipe.path),
            found="inputs " + ", ".join(f"{item.name} ({item.kind})" for item in recipe.file.inputs),
            expected="one image, every other input with feedback, and a deployed output with at least two classes",
            next_step="leave out --end-to-end",
        )
    return photos[0], scored[0]


def open_file(subject: Mapping[str, Any]) -> EndToEnd:
    """Return the artifact of ``subject``: its arguments are ``photos``, paths of images that are used in turn."""
    artifact = read_artifact(Path(subject["path"]))
    recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
    stack = ExitStack()
    opened = part(artifact.plan.target, "runtime").open_artifact(artifact.path, subject["threads"])
    runtime: Runtime = stack.enter_context(opened)
    what = Opened(
        recipe=recipe,
        runtime=runtime.name,
        prepare=lambda sample: feed(sample, runtime.inputs, recipe),
        infer=runtime.run,
        read=lambda outputs: read_back(outputs, runtime.outputs),
        kind=artifact.plan.output_kind,
        close=stack.close,
    )
    return EndToEnd(what, subject["arguments"]["photos"])


def open_network(subject: Mapping[str, Any]) -> EndToEnd:
    """Return the network of ``subject``, see ``eager.load_network_of``; its arguments hold ``photos`` as well."""
    called, recipe, runtime = load_network_of(subject)

    def infer(given: tuple[torch.Tensor, ...]) -> Mapping[str, Array]:
        with torch.inference_mode():
            return name_outputs(called(*given), recipe)

    what = Opened(
        recipe=recipe,
        runtime=runtime,
        prepare=lambda sample: as_tensors(sample, recipe, torch.float32),
        infer=infer,
        read=lambda outputs: outputs,
        kind=OutputKind.LOGITS,
        close=lambda: None,
    )
    return EndToEnd(what, subject["arguments"]["photos"])


class EndToEnd:
    """An open subject whose run takes the next photo through all ``STEPS``; ``result`` is the last composite."""

    def __init__(self, opened: Opened, photos: Sequence[str]) -> None:
        self._opened = opened
        self._photo, self._scored = require_photos(opened.recipe)
        pictures = [read_image(Path(path)) for path in photos]
        self._pictures = itertools.cycle([(one, np.full_like(one, _BACKGROUND)) for one in pictures])
        self.runtime = opened.runtime
        self.result: Pixels = pictures[0]
        self._seconds = [0.0] * len(STEPS)
        self._runs = 0

    def run(self) -> object:
        """Make one composite."""
        photo, background = next(self._pictures)
        begun = time.perf_counter()
        given = self._opened.prepare(picture_sample(self._opened.recipe, photo))
        prepared = time.perf_counter()
        outputs = self._opened.infer(given)
        inferred = time.perf_counter()
        scores = np.asarray(self._opened.read(outputs)[self._scored.name])
        small = (classes_in(scores, self._opened.kind)[0] > 0).astype(np.uint8)
        mask = fit_mask_to_photo(small, self._photo, *photo.shape[:2])
        masked = time.perf_counter()
        self.result = np.asarray(cv2.copyTo(photo, mask, background.copy()), dtype=np.uint8)
        ended = time.perf_counter()
        for index, seconds in enumerate((prepared - begun, inferred - prepared, masked - inferred, ended - masked)):
            self._seconds[index] += seconds
        self._runs += 1
        return self.result

    def steps(self) -> dict[str, float]:
        """Return the mean seconds of each step since this was last asked; nothing without a run."""
        runs = max(self._runs, 1)
        found = {name: seconds / runs for name, seconds in zip(STEPS, self._seconds, strict=True) if self._runs}
        self._seconds, self._runs = [0.0] * len(STEPS), 0
        return found

    def close(self) -> None:
        """Release the file or network."""
        self._opened.close()
