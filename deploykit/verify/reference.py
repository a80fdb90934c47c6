"""The reference of every comparison: the training form itself, evaluated in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deploykit.errors import CaptureError
from deploykit.recipe import Recipe
from deploykit.verify.samples import Sample

Outputs = dict[str, NDArray[np.floating]]


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def as_tensors(sample: Sample, recipe: Recipe, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the network inputs of ``sample`` in the recipe's order."""
    return tuple(torch.from_numpy(sample.tensors[item.name]).to(dtype) for item in recipe.file.inputs)


def reference_outputs(module: nn.Module, recipe: Recipe, samples: Sequence[Sample]) -> tuple[Outputs, ...]:
    """Return the float64 outputs of the training form, one dictionary per sample; ``module`` is left untouched.

    Raises CaptureError where the network cannot compute in float64.
    """
    reference = copy.deepcopy(module).double()
    with _default_dtype(torch.float64), torch.no_grad():
        try:
            return tuple(
                name_outputs(reference(*as_tensors(sample, recipe, torch.float64)), recipe) for sample in samples
            )
        except RuntimeError as error:
            raise CaptureError(
                "The network cannot be evaluated in float64, the reference of every comparison.",
                where=type(module).__name__,
                found=next(iter(str(error).strip().splitlines()), type(error).__name__),
                expected="a forward that works at the precision and the size of its inputs",
                next_step="create tensors with dtype=x.dtype instead of a fixed float32, and check the input size",
            ) from error


def name_outputs(result: object, recipe: Recipe) -> Outputs:
    """Return what a forward returned as output name → array, in the order of the recipe.

    Raises CaptureError where it returned another number of tensors, or of classes, than the recipe announces.
    """
    leaves, _ = torch.utils._pytree.tree_flatten(result)
    names = [output.name for output in recipe.file.outputs]
    if len(leaves) != len(names):
        raise CaptureError(
            "The network does not return what its recipe announces.",
            where=str(recipe.path),
            found=f"{len(leaves)} tensors",
            expected=f"{len(names)}: {', '.join(names)}",
        )
    for output, leaf in zip(recipe.file.outputs, leaves, strict=True):
        classes = len(output.classes)
        if classes > 1 and (leaf.ndim < 2 or leaf.shape[1] != classes):
            raise CaptureError(
                "An output has another number of classes than its recipe announces.",
                where=f"{recipe.path}: outputs, {output.name}",
                found=f"shape {tuple(leaf.shape)}",
                expected=f"{classes} scores along axis 1: {', '.join(output.classes)}",
                next_step="correct classes of this output, or leave it out where axis 1 holds no class scores",
            )
    _refuse_another_size(recipe, {name: tuple(leaf.shape) for name, leaf in zip(names, leaves, strict=True)})
    return {name: leaf.detach().numpy() for name, leaf in zip(names, leaves, strict=True)}


def _refuse_another_size(recipe: Recipe, shapes: dict[str, tuple[int, ...]]) -> None:
    """Raise CaptureError where an input takes the feedback of an output that has another height or width."""
    for item in recipe.file.inputs:
        if item.feedback is None:
            continue
        source = shapes[item.feedback.output]
        if len(source) != 4 or source[2:] != item.shape[2:]:
            raise CaptureError(
                "An input takes the feedback of an output of another size.",
                where=f"{recipe.path}: inputs, {item.name}",
                found=f"{item.name} {list(item.shape)}, {item.feedback.output} {list(source)}",
                expected="the height and the width of that output",
                next_step="correct the shape of this input",
            )


def gather(outputs: Sequence[Outputs], name: str) -> list[NDArray[np.floating]]:
    """Return one output of every sample."""
    return [sample[name] for sample in outputs]
