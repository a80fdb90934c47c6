"""The inputs and outputs in a recipe, and the types that all of its tables share."""

from __future__ import annotations

import keyword
import math
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from deploykit.vocab import ColorOrder, Layout, TensorSpec

MOST_VALUES = 2**28
Item = TypeVar("Item")


def _not_reserved(name: str) -> str:
    if keyword.iskeyword(name) or name in {"self", "torch"}:
        raise ValueError("another name: this one is reserved in the code that is written for the converters")
    return name


def not_blank(text: str) -> str:
    """Return ``text``; ValueError where it is empty or blank."""
    if not text.strip():
        raise ValueError("a text that says something")
    return text


def some(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return ``items``; ValueError where there are none."""
    # Not Field(min_length=1): pydantic counts only valid entries, and would report an invalid one as none at all.
    if not items:
        raise ValueError("at least one entry")
    return items


def once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Return ``items``; ValueError where one comes twice."""
    if len(set(items)) != len(items):
        raise ValueError("each entry once")
    return items


# TOML has lists and strings where Python has tuples and enums; everything else has to be of its own type.
FROM_TOML = Strict(False)
Text = Annotated[str, AfterValidator(not_blank)]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(_not_reserved)]
Channels = Annotated[tuple[float, ...], FROM_TOML, AfterValidator(some)]
Size = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A table of a recipe: unknown keys are refused and values are never changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Resize(Section):
    """How a photo becomes the input size: ``stretch`` ignores its aspect ratio, ``letterbox`` pads to keep it."""

    rule: Literal["stretch", "letterbox"] = "stretch"
    """`stretch` ignores the aspect ratio, `letterbox` keeps it and pads."""
    filter: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    """How pixels are interpolated; OpenCV does it."""
    pad_value: Annotated[int, Field(ge=0, le=255)] = 128
    """The grey value, 0 to 255, of the border of a letterbox."""


class Feedback(Section):
    """Video: a tensor input is the probability of one class (softmax over the classes) in the frame before."""

    output: TensorName
    """The deployed output that holds the scores; the input has its height and width."""
    class_name: Text
    """The class of that output whose probability it is."""
    first: float
    """Every value of the input for the first frame, from 0 to 1."""


class Input(Section):
    """One input. For an image, the network sees ``(pixel - mean) * scale`` per channel, in ``color_order``."""

    name: TensorName
    """The name that the input has in every exported file."""
    kind: Literal["image", "tensor"] = "image"
    """`image` for 8-bit pixels with preprocessing, `tensor` for anything else."""
    shape: Annotated[tuple[int, ...], FROM_TOML]
    """Batch (always 1) first; an image is `[1, 3, height, width]`."""
    color_order: Annotated[ColorOrder, FROM_TOML] = ColorOrder.RGB
    """The order of the channels that the network sees."""
    value_range: Annotated[tuple[float, float], FROM_TOML] = (0.0, 255.0)
    """Smallest and largest value; noise of a tensor input is drawn from it."""
    mean: Channels = (0.0,)
    """Subtracted from the pixels, one value or one for each channel."""
    scale: Channels = (1.0,)
    """Multiplied after the subtraction, one value or one for each channel: usually `1 / std`."""
    resize: Resize = Resize()
    """How a photo becomes the input size."""
    feedback: Feedback | None = None
    """For video: what a tensor input takes from the frame before; it is written into the file."""
    source: Text
    """Where these values come from: the training code, a paper, a guess."""

    @field_validator("shape")
    @classmethod
    def _positive(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if not shape or any(size < 1 for size in shape):
            raise ValueError("every size of the shape must be at least 1, batch first")
        if shape[0] != 1:
            raise ValueError("the batch size, the first number of the shape, must be 1")
        if math.prod(shape) > MOST_VALUES:
            raise ValueError(f"a shape of at most {MOST_VALUES} values (1 GiB in float32)")
        return shape

    @model_validator(mode="after")
    def _consistent(self) -> Input:
        if self.kind == "tensor":
            unused = [
                key
                for key in ("color_order", "mean", "scale", "resize")
                if getattr(self, key) != type(self).model_fields[key].default
            ]
            if unused:
                raise ValueError(f'no {" or ".join(unused)}: an input of kind = "tensor" is not preprocessed')
            if self.value_range[0] >= self.value_range[1]:
                raise ValueError("value_range goes from the smallest value to the largest")
            if self.feedback is not None:
                self._takes_a_probability(self.feedback)
            return self
        if self.feedback is not None:
            raise ValueError('feedback for an input of kind = "tensor" only: an image is not a probability')
        if len(self.shape) != 4 or self.shape[1] != 3:
            raise ValueError('an image input has the shape [1, 3, height, width]; use kind = "tensor" for others')
        for key, values in (("mean", self.mean), ("scale", self.scale)):
            if len(values) not in (1, self.shape[1]):
                raise ValueError(f"{key} needs 1 or {self.shape[1]} values, one per channel, not {len(values)}")
        if any(value == 0 for value in self.scale):
            raise ValueError("scale other than 0: it multiplies the input")
        if self.value_range != (0.0, 255.0):
            raise ValueError("an image input is described for pixels from 0 to 255: put the range into mean and scale")
        return self

    def _takes_a_probability(self, feedback: Feedback) -> None:
        if len(self.shape) != 4 or self.shape[1] != 1:
            raise ValueError("an input with feedback has the shape [1, 1, height, width] of its output")
        if self.value_range != (0.0, 1.0):
            raise ValueError("an input with feedback is a probability: value_range = [0.0, 1.0]")
        if not 0 <= feedback.first <= 1:
            raise ValueError("feedback.first is a probability, from 0 to 1")

    def spec(self) -> TensorSpec:
        """Return name, shape and dtype as the network takes them."""
        return TensorSpec(self.name, self.shape, "float32", Layout.NCHW)

    @property
    def height(self) -> int:
        """Rows of the input."""
        return self.shape[-2]

    @property
    def width(self) -> int:
        """Columns of the input."""
        return self.shape[-1]


class Output(Section):
    """One tensor that forward returns. ``deploy = false`` drops it from the exported file (an edge head, say)."""

    name: TensorName
    """The name that the output has in every exported file."""
    meaning: Text
    """What the values say; it is written into the file."""
    classes: Annotated[tuple[str, ...], FROM_TOML] = ()
    """Names of the classes along axis 1; with two or more, masks are compared."""
    deploy: bool = True
    """Whether the exported file has this output."""

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes) or not all(name.strip() for name in classes):
            raise ValueError("a name for each class, no two the same")
        return classes
