"""One open file against its reference: every output compared, measured and linted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploykit.chatter import contained
from deploykit.errors import ArtifactError, DeploykitError
from deploykit.recipe import Recipe
from deploykit.records import Tolerance
from deploykit.targets.base import Array, Runtime
from deploykit.verification.bind_inputs import fed
from deploykit.verification.bind_outputs import OutputBinding, form_of
from deploykit.verification.exported import ExportedFile
from deploykit.verification.figures import cosine, mean_iou, truth_miou, worst_value
from deploykit.verification.records import InputBinding, OutputForm, OutputVerification, RuntimePair
from deploykit.verify.compare import Masks, best_class, compare
from deploykit.verify.contract import (
    compare_masks,
    contracted,
    holds_probabilities,
    one_hot,
    softmax,
    tolerance_of,
    two_at_least,
)
from deploykit.verify.lint import Classes, lint_output
from deploykit.verify.reference import Outputs, gather
from deploykit.verify.samples import Sample
from deploykit.vocab import OutputKind, Precision

Value = NDArray[np.floating]


@dataclass(frozen=True)
class OpenFile:
    """A file in one runtime, with the recipe at the size of its pixels and the inputs that are bound to it."""

    file: ExportedFile
    runtime: Runtime
    recipe: Recipe
    inputs: tuple[InputBinding, ...]

    def run(self, sample: Sample) -> dict[str, Array]:
        """Return the outputs by the file's names. Raises ArtifactError where the runtime cannot run it."""
        try:
            with contained():
                return self.runtime.run(fed(self.inputs, sample, self.recipe))
        except DeploykitError:
            raise
        except Exception as error:
            # Runtimes raise bare C++ exceptions whose classes they do not export under stable names.
            raise ArtifactError(
                "The runtime cannot run the file.",
                where=str(self.file.path),
                found=str(error).strip()[:400],
                expected=f"a model that {self.runtime.name} runs on the inputs that it declares",
            ) from error


@dataclass(frozen=True)
class Bounds:
    """What is allowed: the tolerance of the recipe for ``precision``."""

    tolerance: Tolerance
    precision: Precision


def judge(
    bindings: Sequence[OutputBinding],
    found: Sequence[dict[str, Array]],
    reference: Sequence[Outputs],
    samples: Sequence[Sample],
    bounds: Bounds,
) -> tuple[OutputVerification, ...]:
    """Return the verdict on each bound output; ``found`` are the file's own values, one dictionary per sample."""
    return tuple(_output(one, found, reference, samples, bounds) for one in bindings)


def _output(
    binding: OutputBinding,
    found: Sequence[dict[str, Array]],
    reference: Sequence[Outputs],
    samples: Sequence[Sample],
    bounds: Bounds,
) -> OutputVerification:
    output = binding.output
    ours = [binding.in_network_order(values[binding.file_output]) for values in found]
    network = gather(reference, output.name)
    form = form_of(binding, ours, network)
    classes = len(output.classes)
    pictures = [sample.picture for sample in samples]
    if form is OutputForm.MASK:
        scores = [two_at_least(one) for one in network]
        comparison = compare_masks(output.name, ours, scores, bounds.tolerance, pictures=pictures)
        theirs: list[Value] = [one_hot(contracted(one, OutputKind.MASK), one.shape[1]) for one in scores]
    else:
        ours, theirs, tolerance = in_one_form(form, ours, network, bounds.tolerance)
        comparison = compare(output.name, ours, theirs, tolerance, classes=classes, pictures=pictures)
    fits = all(a.shape == b.shape for a, b in zip(ours, theirs, strict=True))
    masks = fits and theirs[0].ndim == 4 and (classes > 1 or form is OutputForm.MASK)
    return OutputVerification(
        output=output.name,
        file_output=binding.file_output,
        layout=binding.layout,
        form=form,
        comparison=comparison,
        cosine=cosine(ours, theirs) if fits else None,
        miou=mean_iou(ours, theirs, samples) if masks else None,
        truth_miou=truth_miou(ours, samples) if masks else None,
        reference_truth_miou=truth_miou(theirs, samples) if masks else None,
        worst=worst_value(comparison, ours, theirs, samples) if fits else None,
        lints=lint_output(ours, theirs, bounds.precision, _classes(ours, theirs, classes)),
    )


def _classes(ours: Sequence[Value], theirs: Sequence[Value], count: int) -> Classes | None:
    """Return the best classes of both sides where each has a score for every one of ``count``."""
    if count < 2 or any(one.ndim != 4 or one.shape[1] != count for one in (*ours, *theirs)):
        return None
    return Classes([best_class(one) for one in ours], [best_class(one) for one in theirs])


def in_one_form(
    form: OutputForm, ours: Sequence[Value], network: Sequence[Value], tolerance: Tolerance
) -> tuple[list[Value], list[Value], Tolerance]:
    """Return both sides as probabilities where one of them is, and the tolerance that follows for them."""
    if form is OutputForm.NETWORK:
        return list(ours), list(network), tolerance
    if form is OutputForm.SIGMOID:
        theirs = [contracted(one, OutputKind.PROBABILITY) for one in network]
    else:
        theirs = list(network) if holds_probabilities(network) else [softmax(one) for one in network]
    return list(ours), theirs, tolerance_of(OutputKind.PROBABILITY, tolerance)


def between(
    names: tuple[str, str],
    outputs: Sequence[OutputBinding],
    values: tuple[Sequence[dict[str, Array]], Sequence[dict[str, Array]]],
    samples: Sequence[Sample],
    tolerance: Tolerance,
) -> tuple[RuntimePair, ...]:
    """Return how two runtimes of the same file differ, the second one as the reference.

    Of masks no margin is known: no pixel counts as wrong, and the share of the same class is judged.
    """
    pictures = [sample.picture for sample in samples]
    pairs = []
    for one in outputs:
        ours, theirs = ([one.in_network_order(item[one.file_output]) for item in side] for side in values)
        if one.fits and one.kind is OutputKind.MASK:
            found, expected = ([best_class(item) for item in side] for side in (ours, theirs))
            masks = Masks(found, expected, [np.zeros(item.shape, np.bool_) for item in found])
            bounds = tolerance_of(OutputKind.MASK, tolerance)
            comparison = compare(one.output.name, ours, theirs, bounds, pictures=pictures, masks=masks)
        else:
            classes = len(one.output.classes)
            comparison = compare(one.output.name, ours, theirs, tolerance, classes=classes, pictures=pictures)
        pairs.append(RuntimePair(*names, comparison))
    return tuple(pairs)
