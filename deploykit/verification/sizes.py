"""At which size a file and the network are compared: the recipe's, the file's own, or both where the file resizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploykit.errors import ArtifactError, CaptureError, DeploykitError, UsageError
from deploykit.images.preprocess import normalise
from deploykit.recipe import Recipe
from deploykit.records import TensorRecord
from deploykit.verification.bind_inputs import bind_inputs, size_of
from deploykit.verification.bind_outputs import bind_outputs
from deploykit.verification.judge import OpenFile
from deploykit.verification.records import InputBinding
from deploykit.verification.reference import Reference
from deploykit.verification.resampling import fitted
from deploykit.verify.reference import Outputs
from deploykit.verify.samples import Sample, draw_samples
from deploykit.vocab import InputKind, Layout


@dataclass(frozen=True)
class Sizes:
    """``file_recipe`` at the size of the pixels that the file takes, ``network_recipe`` at the network's size.

    They are the same recipe unless the file brings the picture to the network's size by itself.
    """

    file_recipe: Recipe
    network_recipe: Recipe
    notes: tuple[str, ...] = ()

    @property
    def resizes(self) -> bool:
        """Whether the file resizes by itself."""
        return self.file_recipe is not self.network_recipe

    def for_network(self, sample: Sample) -> Sample:
        """Return ``sample`` as the network takes it: the file's pixels resized in floats, then normalised."""
        if not self.resizes:
            return sample
        tensors = dict(sample.tensors)
        for item in self.network_recipe.file.inputs:
            if item.kind == "image":
                picture = fitted(sample.pixels[item.name].astype(np.float64), item)
                tensors[item.name] = normalise(picture, item)
        return replace(sample, tensors=tensors)


def bind_at_size(
    records: Sequence[TensorRecord],
    recipe: Recipe,
    path: Path,
    names: Mapping[str, str] | None,
    kind: InputKind | None,
) -> tuple[Recipe, tuple[InputBinding, ...]]:
    """Return ``recipe`` at the size of the file's image inputs, and the inputs bound. Raises as ``bind_inputs``."""
    try:
        found = bind_inputs(records, recipe, path, names=names, kind=kind)
        size = size_of(found)
    except ArtifactError:
        # An input with feedback has the image's size: all of them may be of another one.
        size = _image_size(records)
        if size is None:
            raise
        try:
            return (sized := recipe.with_size(*size)), bind_inputs(records, sized, path, names=names, kind=kind)
        except (ArtifactError, UsageError):
            pass
        raise
    if size is None:
        return recipe, found
    return recipe.with_size(*size), found


def _image_size(records: Sequence[TensorRecord]) -> tuple[int, int] | None:
    for record in records:
        if len(record.shape) == 4 and 3 in (record.shape[1], record.shape[3]):
            last = record.shape[3] == 3 and (record.shape[1] != 3 or record.layout is Layout.NHWC)
            rows, columns = record.shape[1:3] if last else record.shape[2:4]
            if rows > 0 and columns > 0:
                return rows, columns
    return None


def settle_sizes(
    file: OpenFile, recipe: Recipe, reference: Reference, output_names: Mapping[str, str] | None
) -> tuple[Sizes, str]:
    """Return at which sizes ``file`` and ``reference`` are compared, and what is wrong if no size fits.

    A file of another input size than ``recipe`` has either a network of that size inside, or the recipe's network
    behind a resize: its outputs have the shapes of one of the two.
    """
    sized = file.recipe
    if [item.shape for item in sized.file.inputs] == [item.shape for item in recipe.file.inputs]:
        return Sizes(recipe, recipe), ""
    sample = draw_samples(sized, noise=0, portraits=1)[0]
    found = file.run(sample)
    rows, columns = next(item.shape[-2:] for item in sized.file.inputs if item.kind == "image")

    def agree(expected: Outputs) -> bool:
        records, known = file.runtime.outputs, file.file
        bound, _ = bind_outputs(
            found, records, expected, recipe, known.path, names=output_names, kind=known.output_kind
        )
        return bool(bound) and all(one.fits for one in bound)

    inside = Sizes(sized, recipe)
    problems = []
    candidates = (
        (inside, f"the file takes {rows}x{columns} and resizes by itself to the network's size"),
        (Sizes(sized, sized), f"the file was made for {rows}x{columns}, another size than the recipe's"),
    )
    for one, note in candidates:
        try:
            (expected,) = reference.outputs([one.for_network(sample)], one.network_recipe)
            if agree(expected):
                return replace(one, notes=(note,)), ""
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in expected.items())
            problems.append(f"{shapes} at {one.network_recipe.file.inputs[0].shape[-2:]}")
        except (CaptureError, ArtifactError, UsageError) as error:
            problems.append(_reason(error))
    return inside, "; ".join(problems)


def _reason(error: DeploykitError) -> str:
    return error.found or error.message
