"""The soft mask of a frame: how likely each pixel is the person, at the frame's own size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from deploykit.errors import VerificationError
from deploykit.evaluation.predict import Feedback, Predictor
from deploykit.images.preprocess import fit_alpha_to_photo
from deploykit.preview.clock import Clock
from deploykit.preview.sources import Frame
from deploykit.recipe import Output
from deploykit.targets.base import Array
from deploykit.verify.contract import classes_in, probability_in
from deploykit.verify.feedback import next_feedback
from deploykit.verify.samples import picture_sample
from deploykit.vocab import OutputKind

FloatArray = NDArray[np.float32]


def kind_of(predictor: Predictor) -> OutputKind:
    """Return what the outputs of ``predictor`` are."""
    artifact = predictor.subject.artifact
    return OutputKind.LOGITS if artifact is None else artifact.plan.output_kind


def foreground(values: Array, output: Output, kind: OutputKind) -> FloatArray:
    """Return the probability (h, w), 0 to 1, that a pixel is of any class but the first of ``output``.

    ``values`` (1, C, h, w) are what a file of ``kind`` gives; a mask is 0 or 1. Raises VerificationError for values
    that are not finite.
    """
    if not np.isfinite(values).all():
        raise VerificationError(
            "The scores are not finite: no mask follows from them.",
            where=output.name,
            found="NaN or infinity",
            next_step="look at deploykit verify-reparam, or export in another precision",
        )
    real = np.asarray(values, np.float32)
    if kind is OutputKind.MASK:
        return np.asarray(classes_in(real, kind)[0] > 0, np.float32)
    return np.asarray(1 - probability_in(real, kind, 0)[0, 0], np.float32)


def mattes(
    frames: Iterable[Frame], predictors: Sequence[Predictor], clock: Clock
) -> Iterator[tuple[Frame, tuple[FloatArray, ...]]]:
    """Yield each frame (H, W, 3) with one soft mask (H, W) of every predictor.

    A network for video gets its own output of the frame before, and for the first frame what its recipe says.
    """
    carried: list[Feedback] = [one.first_feedback() for one in predictors]
    decoded = iter(frames)
    while True:
        with clock.time("decode"):
            frame = next(decoded, None)
        if frame is None:
            return
        found = []
        for index, predictor in enumerate(predictors):
            with clock.time("preprocessing"):
                sample = picture_sample(predictor.subject.recipe, frame.pixels, carried[index])
            with clock.time("inference"):
                outputs: Mapping[str, Array] = predictor.forward(sample)
            with clock.time("mask"):
                kind = kind_of(predictor)
                carried[index] = next_feedback(predictor.subject.recipe, outputs, kind)
                alpha = foreground(np.asarray(outputs[predictor.scored.name]), predictor.scored, kind)
                found.append(fit_alpha_to_photo(alpha, predictor.photo, *frame.pixels.shape[:2]))
        yield frame, tuple(found)
