"""Video: what an input takes from the frame before, as the feedback in a recipe says.

The input is the probability of one class in one output: the softmax over the classes, at the size of that output.
Source: RCRNet, section 4.2.2, and the public code of PortraitNet: the mask of the frame before as a fourth channel.
"""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from deploykit.images.preprocess import Pixels, resize_pixels
from deploykit.recipe import Feedback, Input, Recipe, Resize
from deploykit.verify.contract import probability_in
from deploykit.vocab import OutputKind

FloatArray = NDArray[np.float32]
# From one frame to the next of a person who moves: standard deviations of a turn in degrees, and of shares of the size.
TURN, GROWTH, SHIFT = 3.0, 0.03, 0.02


def fed_inputs(recipe: Recipe) -> dict[str, tuple[Input, Feedback]]:
    """Return the inputs that take feedback, by name; none for a network of single images."""
    return {item.name: (item, item.feedback) for item in recipe.file.inputs if item.feedback is not None}


def first_feedback(recipe: Recipe) -> dict[str, FloatArray]:
    """Return what the inputs with feedback take for the first frame."""
    return {
        name: np.full(item.shape, feedback.first, np.float32) for name, (item, feedback) in fed_inputs(recipe).items()
    }


def next_feedback(
    recipe: Recipe, outputs: Mapping[str, NDArray[np.generic]], kind: OutputKind = OutputKind.LOGITS
) -> dict[str, FloatArray]:
    """Return what the inputs with feedback take for the next frame, from the ``outputs`` (1, C, H, W) of this one.

    They are what a file of ``kind`` gives: a probability is fed back as it is.
    """
    return {
        name: probability_in(np.asarray(outputs[feedback.output]), kind, _class_index(recipe, feedback)).astype(
            np.float32
        )
        for name, (_, feedback) in fed_inputs(recipe).items()
    }


def likely_feedback(recipe: Recipe, mask: Pixels, rng: np.random.Generator) -> dict[str, FloatArray]:
    """Return what the inputs with feedback may take where ``mask`` (H, W), 0 or 1, is the person in the photo.

    The mask is turned, resized and shifted a little, as the frame before would have it.
    """
    image = next((item for item in recipe.file.inputs if item.kind == "image"), None)
    found = {}
    for name, (item, feedback) in fed_inputs(recipe).items():
        resize = Resize() if image is None else image.resize.model_copy(update={"pad_value": 0})
        fitted = resize_pixels(
            np.repeat(mask[:, :, None] * np.uint8(255), 3, axis=2), item.model_copy(update={"resize": resize})
        )
        size = (item.width, item.height)
        matrix = cv2.getRotationMatrix2D((item.width / 2, item.height / 2), rng.normal(0, TURN), rng.normal(1, GROWTH))
        matrix[:, 2] += rng.normal(0, SHIFT, 2) * size
        moved = cv2.warpAffine(fitted[:, :, 0], matrix, size, flags=cv2.INTER_LINEAR).astype(np.float32) / 255
        # Every class but the first is the person, as in the masks that deploykit writes.
        found[name] = (moved if _class_index(recipe, feedback) else 1 - moved)[None, None]
    return found


def _class_index(recipe: Recipe, feedback: Feedback) -> int:
    source = next(output for output in recipe.file.outputs if output.name == feedback.output)
    return source.classes.index(feedback.class_name)
