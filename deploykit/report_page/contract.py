"""How a file is called: what each input takes and each output means, from its manifest and the recipe in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from deploykit.artifact import MANIFEST
from deploykit.recipe import Recipe, recipe_from_table
from deploykit.recipe_tensors import Input, Output
from deploykit.records import Artifact, TensorRecord
from deploykit.vocab import ColorOrder, InputKind, Layout, OutputKind, Target


class Given(StrEnum):
    """What a caller has to hand over for one input."""

    PIXELS = "pixels"
    """8-bit pixels from 0 to 255: the preprocessing is inside the file."""
    VALUES = "values"
    """Pixels after the preprocessing of the recipe, which the caller does."""
    TENSOR = "tensor"
    """Numbers that are no image."""
    FEEDBACK = "feedback"
    """A probability of the frame before."""


@dataclass(frozen=True)
class InputCall:
    """One input of a file. ``record`` is what the file declares, ``spec`` what the recipe says of it."""

    record: TensorRecord
    spec: Input
    given: Given
    order: ColorOrder

    @property
    def height(self) -> int:
        """Rows of an image."""
        return self.record.shape[1] if self.record.layout is Layout.NHWC else self.record.shape[-2]

    @property
    def width(self) -> int:
        """Columns of an image."""
        return self.record.shape[2] if self.record.layout is Layout.NHWC else self.record.shape[-1]

    @property
    def mean(self) -> tuple[float, ...]:
        """What is subtracted from red, green and blue, in the order of the file's channels."""
        return self.spec.mean * 3 if len(self.spec.mean) == 1 else self.spec.mean

    @property
    def scale(self) -> tuple[float, ...]:
        """What is multiplied after that."""
        return self.spec.scale * 3 if len(self.spec.scale) == 1 else self.spec.scale

    def words(self) -> str:
        """Return what the input takes, in one sentence."""
        record = self.record
        head = f"{_line(record.name)}: {record.dtype} {list(record.shape)}"
        if self.given is Given.TENSOR:
            low, high = self.spec.value_range
            return f"{head}, values from {low:g} to {high:g}{_integers(record)}"
        if self.given is Given.FEEDBACK and self.spec.feedback is not None:
            fed = self.spec.feedback
            what = f"the probability of {_line(fed.class_name)} in the frame before, {fed.first:g} for the first frame"
            return f"{head}, {record.layout.value.upper()}: {what}{_integers(record)}"
        resize = self.spec.resize
        rule = "aspect ratio ignored" if resize.rule == "stretch" else f"letterboxed with grey {resize.pad_value}"
        shape = f"{record.layout.value.upper()}, {self.order.value.upper()}"
        photo = f"the photo resized to {self.width} x {self.height} ({resize.filter}, {rule})"
        if self.given is Given.PIXELS:
            return f"{head}, {shape}: {photo}, pixels from 0 to 255; mean and scale are inside the file"
        mean, scale = ", ".join(f"{one:.8g}" for one in self.mean), ", ".join(f"{one:.8g}" for one in self.scale)
        return f"{head}, {shape}: {photo}, then (pixel - [{mean}]) * [{scale}]{_integers(record)}"


@dataclass(frozen=True)
class OutputCall:
    """One output: ``record`` is what the file declares, ``spec`` what the recipe says, ``kind`` what it holds."""

    record: TensorRecord
    spec: Output
    kind: OutputKind

    @property
    def channels(self) -> int:
        """How many channels it has; 1 where it is no map."""
        if len(self.record.shape) != 4:
            return 1
        return self.record.shape[3] if self.record.layout is Layout.NHWC else self.record.shape[1]

    def words(self) -> str:
        """Return what the output says, in one sentence."""
        record, classes = self.record, self.spec.classes
        head = f"{_line(record.name)}: {record.dtype} {list(record.shape)}"
        head += f", {record.layout.value.upper()}" if len(record.shape) == 4 else ""
        named = ", ".join(f"{index} {_line(name)}" for index, name in enumerate(classes))
        if not classes:
            return f"{head}: {_line(self.spec.meaning)}{_integers(record)}"
        if self.kind is OutputKind.MASK:
            return f"{head}: the number of the best class of each pixel ({named})"
        if self.kind is OutputKind.PROBABILITY and self.channels == 1:
            return f"{head}: the probability of {_line(classes[-1])}; above 0.5 it is{_integers(record)}"
        if self.kind is OutputKind.PROBABILITY:
            return f"{head}: one probability per class ({named}), summing to 1; the largest wins{_integers(record)}"
        rule = "above 0 it is the second class" if self.channels == 1 else "the largest wins"
        return f"{head}: one score per class ({named}), no probability; {rule}{_integers(record)}"


@dataclass(frozen=True)
class Contract:
    """How one file is called."""

    target: Target
    file: str
    inputs: tuple[InputCall, ...]
    outputs: tuple[OutputCall, ...]

    @property
    def photo(self) -> InputCall | None:
        """The input that takes the photo."""
        return next((one for one in self.inputs if one.given in (Given.PIXELS, Given.VALUES)), None)

    def _resizing(self) -> Iterator[str]:
        """Yield how the resizing of the lines for this file differs from that of the recipe, which OpenCV does."""
        if self.photo is None:
            return
        name = self.photo.spec.resize.filter
        if self.target in (Target.COREML, Target.COREAI):
            if name != "nearest" or self.photo.given is Given.PIXELS:
                yield (
                    f"These lines resize with the system's own filter, not with OpenCV's {name}: pixels differ, and "
                    "masks may at their edges; resize by your own code where that matters."
                )
        elif name not in ("nearest", "bilinear"):
            what = "averages all pixels below each one" if name == "area" else "weighs 4 x 4 pixels"
            yield (
                f"These lines resize bilinearly, from 2 x 2 pixels; the recipe's {name} {what}: pixels differ, and "
                "masks may at their edges; resize by your own code where that matters."
            )

    def sentences(self) -> tuple[str, ...]:
        """Return what each input takes, what each output says, and where the resizing differs."""
        return (
            *(f"Input {one.words()}." for one in self.inputs),
            *(f"Output {one.words()}." for one in self.outputs),
            *self._resizing(),
        )


def contract_of(artifact: Artifact) -> Contract:
    """Return how ``artifact`` is called. Raises RecipeError where its manifest's copy of the recipe is not valid."""
    recipe = recipe_from_table(artifact.recipe_table, artifact.path.parent / MANIFEST)
    kind = artifact.plan.output_kind
    outputs = {one.name: one for one in recipe.file.outputs}
    return Contract(
        artifact.plan.target,
        artifact.path.name,
        tuple(_input(record, recipe, artifact) for record in artifact.inputs),
        tuple(
            OutputCall(record, outputs[record.name], kind if outputs[record.name].classes else OutputKind.LOGITS)
            for record in artifact.outputs
            if record.name in outputs
        ),
    )


def _input(record: TensorRecord, recipe: Recipe, artifact: Artifact) -> InputCall:
    spec = next((one for one in recipe.file.inputs if one.name == record.name), recipe.file.inputs[0])
    if spec.feedback is not None:
        given = Given.FEEDBACK
    elif spec.kind != "image":
        given = Given.TENSOR
    else:
        given = Given.PIXELS if artifact.plan.input_kind is InputKind.IMAGE else Given.VALUES
    return InputCall(record, spec, given, record.color_order or spec.color_order)


def _integers(record: TensorRecord) -> str:
    if record.scale is None:
        return ""
    return f"; the integer q stands for {record.scale:.8g} * (q - {record.zero_point})"


def _line(text: str) -> str:
    """Return ``text`` in one line that ends no comment."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split()).replace("*/", "* /")
