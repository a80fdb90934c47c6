"""What a recipe and the project file may say: their tables and keys, none of them converted or ignored."""

from __future__ import annotations

import keyword
import math
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    Strict,
    field_validator,
    model_validator,
)

from deploykit.records import Tolerance
from deploykit.vocab import ColorOrder, InputKind, Layout, Precision, Target, TensorSpec

# The most that float64 arithmetic may leave between the training form and the deploy graph, as relative L2.
EXACT = 1e-12
MOST_VALUES = 2**28
Item = TypeVar("Item")


def _not_reserved(name: str) -> str:
    if keyword.iskeyword(name) or name in {"self", "torch"}:
        raise ValueError("another name: this one is reserved in the code that is written for the converters")
    return name


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("a text that says something")
    return text


def _some(items: tuple[Item, ...]) -> tuple[Item, ...]:
    # Not Field(min_length=1): pydantic counts only valid entries, and would report an invalid one as none at all.
    if not items:
        raise ValueError("at least one entry")
    return items


def _once(items: tuple[Item, ...]) -> tuple[Item, ...]:
    if len(set(items)) != len(items):
        raise ValueError("each entry once")
    return items


# TOML has lists and strings where Python has tuples and enums; everything else has to be of its own type.
_FROM_TOML = Strict(False)
Text = Annotated[str, AfterValidator(_not_blank)]
TensorName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$"), AfterValidator(_not_reserved)]
Channels = Annotated[tuple[float, ...], _FROM_TOML, AfterValidator(_some)]
Size = Annotated[int, Field(ge=1)]


class _Section(BaseModel):
    """A table of a recipe: unknown keys are refused and values are never changed."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Network(_Section):
    """Which network: a name from ``deploykit.models`` or ``package.module:factory``, with keyword arguments."""

    factory: Text
    """A network that comes with deploykit, or `package.module:factory` from your own code."""
    arguments: dict[str, JsonValue] = {}
    """Keyword arguments of the factory."""


class Resize(_Section):
    """How a photo becomes the input size: ``stretch`` ignores its aspect ratio, ``letterbox`` pads to keep it."""

    rule: Literal["stretch", "letterbox"] = "stretch"
    """`stretch` ignores the aspect ratio, `letterbox` keeps it and pads."""
    filter: Literal["nearest", "bilinear", "bicubic", "area"] = "bilinear"
    """How pixels are interpolated; OpenCV does it."""
    pad_value: Annotated[int, Field(ge=0, le=255)] = 128
    """The grey value, 0 to 255, of the border of a letterbox."""


class Input(_Section):
    """One input. For an image, the network sees ``(pixel - mean) * scale`` per channel, in ``color_order``."""

    name: TensorName
    """The name that the input has in every exported file."""
    kind: Literal["image", "tensor"] = "image"
    """`image` for 8-bit pixels with preprocessing, `tensor` for anything else."""
    shape: Annotated[tuple[int, ...], _FROM_TOML]
    """Batch (always 1) first; an image is `[1, 3, height, width]`."""
    color_order: Annotated[ColorOrder, _FROM_TOML] = ColorOrder.RGB
    """The order of the channels that the network sees."""
    value_range: Annotated[tuple[float, float], _FROM_TOML] = (0.0, 255.0)
    """Smallest and largest value; noise of a tensor input is drawn from it."""
    mean: Channels = (0.0,)
    """Subtracted from the pixels, one value or one for each channel."""
    scale: Channels = (1.0,)
    """Multiplied after the subtraction, one value or one for each channel: usually `1 / std`."""
    resize: Resize = Resize()
    """How a photo becomes the input size."""
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
            return self
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


class Output(_Section):
    """One tensor that forward returns. ``deploy = false`` drops it from the exported file (an edge head, say)."""

    name: TensorName
    """The name that the output has in every exported file."""
    meaning: Text
    """What the values say; it is written into the file."""
    classes: Annotated[tuple[str, ...], _FROM_TOML] = ()
    """Names of the classes along axis 1; with two or more, masks are compared."""
    deploy: bool = True
    """Whether the exported file has this output."""

    @field_validator("classes")
    @classmethod
    def _told_apart(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(classes)) != len(classes) or not all(name.strip() for name in classes):
            raise ValueError("a name for each class, no two the same")
        return classes


class CheckpointSection(_Section):
    """Where the trained weights are, relative to the recipe, and how their keys map to the network's."""

    path: Text
    """Relative to the recipe's folder."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """If given, another file is refused."""
    key: str | None = None
    """The nested state dict to take, for example `ema.module`."""
    key_map: dict[str, str] = {}
    """Old name, or leading part of names, to new."""


class Expected(_Section):
    """How often each pass must fire on this network; a step that did nothing is then seen."""

    fold_batch_norm: int | None = Field(default=None, ge=0)
    """How many BatchNorms must be folded."""
    merge_branches: int | None = Field(default=None, ge=0)
    """How many sums of branches must be merged."""


class ToleranceSection(_Section):
    """The bounds of one comparison, with the reason for their size."""

    reason: Annotated[str, Field(min_length=10), AfterValidator(_not_blank)]
    """Why the bounds are what they are."""
    max_abs_error: float | None = Field(default=None, gt=0)
    """The largest absolute error."""
    relative_l2: float | None = Field(default=None, gt=0)
    """The largest relative L2 error over all samples."""
    mask_agreement: float | None = Field(default=None, gt=0, le=1)
    """The smallest share of pixels of equal class, on pictures."""
    wrong_pixels: int | None = Field(default=None, ge=0)
    """How many pixels may change class beyond the margin."""

    @model_validator(mode="after")
    def _bounds_something(self) -> ToleranceSection:
        if all(getattr(self, key) is None for key in type(self).model_fields if key != "reason"):
            raise ValueError(
                "a tolerance needs at least one bound: max_abs_error, relative_l2, mask_agreement, wrong_pixels"
            )
        return self

    def record(self) -> Tolerance:
        """Return the same bounds as a record."""
        return Tolerance(**self.model_dump())


class Tolerances(_Section):
    """``float64`` judges the algebra, ``float32`` the rounded weights, ``fp32`` and ``fp16`` the exported files."""

    float64: ToleranceSection = ToleranceSection(
        relative_l2=1e-12,
        reason="folding and merging are exact over the reals; float64 leaves about 1e-15 per layer",
    )
    """The deploy graph in float64: the algebra alone."""
    float32: ToleranceSection = ToleranceSection(
        relative_l2=1e-4,
        wrong_pixels=0,
        reason="float32 rounds each weight once, about 6e-8 relative, and each sum",
    )
    """The deploy graph as shipped, rounded once."""
    fp32: ToleranceSection = ToleranceSection(
        relative_l2=1e-4,
        wrong_pixels=0,
        reason="runtimes sum in another order than PyTorch, in the same float32",
    )
    """An exported fp32 file."""
    fp16: ToleranceSection = ToleranceSection(
        relative_l2=5e-2,
        mask_agreement=0.995,
        reason="half precision keeps 11 bits per value and the errors of all layers add up",
    )
    """An exported fp16 file."""

    @field_validator("float64")
    @classmethod
    def _judges_the_algebra(cls, section: ToleranceSection) -> ToleranceSection:
        if section.relative_l2 is None or section.relative_l2 > EXACT:
            raise ValueError(f"relative_l2 of at most {EXACT:g}: more than that is a wrong fold, not rounding")
        return section

    def of(self, precision: Precision) -> Tolerance:
        """Return the bounds of an exported file of ``precision``."""
        section: ToleranceSection = getattr(self, precision.value)
        return section.record()


class Variant(_Section):
    """A named way to export: what differs from the defaults of ``deploykit export``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """What `deploykit export --variant` takes."""
    targets: Annotated[
        tuple[Annotated[Target, _FROM_TOML], ...], _FROM_TOML, AfterValidator(_some), AfterValidator(_once)
    ] = tuple(Target)
    """The targets that it is for."""
    precision: Annotated[Precision, _FROM_TOML] = Precision.FP32
    """As `--precision`."""
    input_kind: Annotated[InputKind, _FROM_TOML] = InputKind.TENSOR
    """As `--input-kind`."""
    layout: Annotated[Layout, _FROM_TOML] | None = None
    """As `--layout`."""
    size: Annotated[tuple[Size, Size], _FROM_TOML] | None = None
    """Height and width, as `--size`."""
    minimum_os: str | None = None
    """As `--minimum-os`."""
    opset: int | None = Field(default=None, ge=1)
    """As `--opset`."""


class RecipeFile(_Section):
    """The whole of a ``recipes/*.toml``."""

    format_version: Literal[1]
    """The version of this format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """The name of the recipe and of its files."""
    description: Text
    """One line; it is written into every file."""
    license: Text
    """Licence of the trained weights; it is written into every file."""
    source: Text
    """Paper or project that the network comes from."""
    network: Network
    """Which network."""
    inputs: Annotated[tuple[Input, ...], _FROM_TOML, AfterValidator(_some)]
    """What the network takes."""
    outputs: Annotated[tuple[Output, ...], _FROM_TOML, AfterValidator(_some)]
    """Every tensor that forward returns, in order."""
    checkpoint: CheckpointSection | None = None
    """Where the trained weights are."""
    expected: Expected = Expected()
    """How often each pass must fire."""
    tolerances: Tolerances = Tolerances()
    """How exact is exact enough."""
    variants: Annotated[tuple[Variant, ...], _FROM_TOML] = ()
    """Named ways to export."""

    @field_validator("format_version", mode="before")
    @classmethod
    def _whole(cls, version: object) -> object:
        # A literal is compared with ==, which takes true and 1.0 for 1.
        if type(version) is not int:
            raise ValueError("1")
        return version

    @model_validator(mode="after")
    def _unique(self) -> RecipeFile:
        for kind, names in (
            ("inputs", [item.name for item in self.inputs]),
            ("outputs", [item.name for item in self.outputs]),
            ("variants", [item.name for item in self.variants]),
        ):
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{kind} of different names, but these come twice: {', '.join(repeated)}")
        clash = {item.name for item in self.inputs} & {item.name for item in self.outputs}
        if clash:
            raise ValueError(f"inputs and outputs of different names, but these are both: {', '.join(sorted(clash))}")
        if not any(output.deploy for output in self.outputs):
            raise ValueError("at least one output that is deployed: set deploy = true on one of [[outputs]]")
        return self


class ProjectFile(_Section):
    """``deploykit.toml`` in the current folder: the recipe that commands use when none is named."""

    recipe: Text
    """A bundled name, or the path of a recipe relative to this file."""
