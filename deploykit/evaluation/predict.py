"""A mask for a photo, by a network in PyTorch or by an exported file in its runtime, frame after frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from deploykit.chatter import contained
from deploykit.errors import ArtifactError, CaptureError, DeploykitError, RecipeError, VerificationError
from deploykit.evaluation.subjects import Subject
from deploykit.images.preprocess import Pixels, fit_mask_to_photo
from deploykit.metrics.confusion import Mask
from deploykit.network import LoadedNetwork
from deploykit.recipe import Input, Output, Recipe
from deploykit.records import Artifact
from deploykit.targets.base import Array, Runtime
from deploykit.targets.table import part
from deploykit.verify.contract import classes_in
from deploykit.verify.feedback import first_feedback, next_feedback
from deploykit.verify.reference import as_tensors, name_outputs
from deploykit.verify.samples import Sample, feed, picture_sample, read_back
from deploykit.vocab import OutputKind

Feedback: TypeAlias = Mapping[str, NDArray[np.float32]]
Forward: TypeAlias = Callable[[Sample], Mapping[str, Array]]


@dataclass(frozen=True)
class Predictor:
    """An open subject: ``runtime`` names what computes, ``forward`` returns output name → array (1, C, H, W)."""

    subject: Subject
    photo: Input
    scored: Output
    runtime: str
    forward: Forward

    @property
    def side(self) -> int:
        """The longer side of the input in pixels."""
        return max(self.photo.height, self.photo.width)

    def first_feedback(self) -> Feedback:
        """Return what a network for video takes for a first frame; nothing for a network of single images."""
        return first_feedback(self.subject.recipe)

    def predict(self, image: Pixels, feedback: Feedback) -> tuple[Mask, Feedback]:
        """Return the portrait's pixels at the size of ``image`` (H, W, 3), and the feedback for the next frame.

        The best class of each pixel decides, every class but the first is foreground, and the mask is brought to the
        photo's size by nearest-neighbour resampling, a letterbox's borders cut away: as ``deploykit run`` does. A
        file that gives probabilities or masks says the class by itself.

        Raises VerificationError for scores that are not finite.
        """
        recipe = self.subject.recipe
        outputs = self.forward(picture_sample(recipe, image, feedback))
        scores = np.asarray(outputs[self.scored.name])
        if not np.isfinite(scores).all():
            raise VerificationError(
                "The scores are not finite: no mask follows from them.",
                where=f"{self.subject.name}: {self.scored.name}",
                found="NaN or infinity",
                next_step="look at deploykit verify-reparam, or export in another precision",
            )
        kind = OutputKind.LOGITS if self.subject.artifact is None else self.subject.artifact.plan.output_kind
        small = (classes_in(scores, kind)[0] > 0).astype(np.uint8)
        mask = fit_mask_to_photo(small, self.photo, *image.shape[:2]) > 0
        return np.asarray(mask), next_feedback(recipe, outputs, kind)


@contextmanager
def opened(subject: Subject, threads: int) -> Iterator[Predictor]:
    """Yield ``subject`` ready to predict; PyTorch's number of threads is set back at the end.

    Raises RecipeError where photos are not what it takes, ArtifactError for a file that its runtime cannot load.
    """
    photo, scored = _contract(subject.recipe)
    with ExitStack() as stack:
        if subject.network is not None:
            name, forward = stack.enter_context(_eager(subject.network, threads))
        elif subject.artifact is not None:
            name, forward = stack.enter_context(_file(subject.artifact, subject.recipe, threads))
        else:
            raise ValueError(f"{subject.name} is neither a network nor a file")
        yield Predictor(subject, photo, scored, name, forward)


def _contract(recipe: Recipe) -> tuple[Input, Output]:
    """Return the one image that ``recipe`` takes and its first deployed output with classes, or raise RecipeError."""
    photos = [item for item in recipe.file.inputs if item.kind == "image"]
    others = [item for item in recipe.file.inputs if item.kind != "image" and item.feedback is None]
    scored = [output for output in recipe.deployed() if len(output.classes) > 1]
    if len(photos) != 1 or others or not scored:
        inputs = ", ".join(f"{item.name} ({item.kind})" for item in recipe.file.inputs)
        classes = ", ".join(output.name for output in scored) or "none"
        raise RecipeError(
            "The network cannot be evaluated on photos.",
            where=str(recipe.path),
            found=f"inputs {inputs}; outputs with classes: {classes}",
            expected="one image, every other input with feedback, and a deployed output with at least two classes",
        )
    return photos[0], scored[0]


@contextmanager
def _eager(network: LoadedNetwork, threads: int) -> Iterator[tuple[str, Forward]]:
    def forward(sample: Sample) -> Mapping[str, Array]:
        try:
            with torch.inference_mode():
                result = network.module(*as_tensors(sample, network.recipe, torch.float32))
        except RuntimeError as error:
            raise CaptureError(
                "The network cannot be run.",
                where=str(network.recipe.path),
                found=next(iter(str(error).strip().splitlines()), type(error).__name__),
                expected="a forward that takes the inputs of the recipe",
            ) from error
        return name_outputs(result, network.recipe)

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield f"PyTorch {torch.__version__}, eager", forward
    finally:
        torch.set_num_threads(before)


@contextmanager
def _file(artifact: Artifact, recipe: Recipe, threads: int) -> Iterator[tuple[str, Forward]]:
    with ExitStack() as stack:
        with contained():
            file = part(artifact.plan.target, "runtime").open_artifact(artifact.path, threads)
            runtime: Runtime = stack.enter_context(file)

        def forward(sample: Sample) -> Mapping[str, Array]:
            try:
                outputs = runtime.run(feed(sample, runtime.inputs, recipe))
            except DeploykitError:
                raise
            except Exception as error:
                # Runtimes raise bare C++ exceptions whose classes they do not export under stable names.
                raise ArtifactError(
                    "The runtime cannot run the file.",
                    where=str(artifact.path),
                    found=str(error).strip()[:400],
                    expected=f"a model that {runtime.name} runs on what its manifest declares",
                ) from error
            return read_back(outputs, runtime.outputs)

        yield runtime.name, forward
