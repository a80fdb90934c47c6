"""What a recipe and the project file may say: their tables and keys, none of them converted or ignored."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, field_validator, model_validator

from deploykit.recipe_budgets import BudgetSection, ProjectBudgetSection
from deploykit.recipe_tensors import FROM_TOML, Input, Output, Section, Size, Text, not_blank, once, some
from deploykit.records import Tolerance
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target

# The most that float64 arithmetic may leave between the training form and the deploy graph, as relative L2.
EXACT = 1e-12


class Network(Section):
    """Which network: a name from ``deploykit.models`` or ``package.module:factory``, with keyword arguments."""

    factory: Text
    """A network that comes with deploykit, or `package.module:factory` from your own code."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the factory."""


class CheckpointSection(Section):
    """Where the trained weights are, and how their keys map to the network's; also those given by --checkpoint."""

    path: Text | None = None
    """Relative to the recipe's folder; none where no weights come with the recipe."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """If given, another file is refused."""
    key: str | None = None
    """The nested state dict to take, for example `ema.module`."""
    key_map: dict[str, str] = Field(default_factory=dict)
    """Old name, or leading part of names, to new."""

    @model_validator(mode="after")
    def _says_something(self) -> CheckpointSection:
        if self.path is None and not self.key_map:
            raise ValueError("a path, a key_map, or both")
        if self.path is None and (self.sha256 is not None or self.key is not None):
            raise ValueError("sha256 and key beside a path only: they are those of its file")
        return self


class Expected(Section):
    """How often each pass must fire on this network; a step that did nothing is then seen."""

    fold_batch_norm: int | None = Field(default=None, ge=0)
    """How many BatchNorms must be folded."""
    merge_branches: int | None = Field(default=None, ge=0)
    """How many sums of branches must be merged."""


class ToleranceSection(Section):
    """The bounds of one comparison, with the reason for their size."""

    reason: Annotated[str, Field(min_length=10), AfterValidator(not_blank)]
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


class Tolerances(Section):
    """``float64`` judges the algebra, ``float32`` the rounded weights, and the others exported files."""

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
    int8: ToleranceSection = ToleranceSection(
        relative_l2=0.5,
        mask_agreement=0.97,
        reason="256 levels for each activation: only masks matter, and export --max-drop bounds what they lose",
    )
    """An exported file with integers in it, of any precision."""

    @field_validator("float64")
    @classmethod
    def _judges_the_algebra(cls, section: ToleranceSection) -> ToleranceSection:
        if section.relative_l2 is None or section.relative_l2 > EXACT:
            raise ValueError(f"relative_l2 of at most {EXACT:g}: more than that is a wrong fold, not rounding")
        return section

    def of(self, precision: Precision) -> Tolerance:
        """Return the bounds of an exported file of ``precision``."""
        section: ToleranceSection = getattr(self, precision.value) if precision.is_float else self.int8
        return section.record()


class Variant(Section):
    """A named way to export: what differs from the defaults of ``deploykit export``."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """What `deploykit export --variant` takes."""
    targets: Annotated[
        tuple[Annotated[Target, FROM_TOML], ...], FROM_TOML, AfterValidator(some), AfterValidator(once)
    ] = tuple(Target)
    """The targets that it is for."""
    precision: Annotated[Precision, FROM_TOML] = Precision.FP32
    """As `--precision`."""
    input_kind: Annotated[InputKind, FROM_TOML] = InputKind.TENSOR
    """As `--input-kind`."""
    output_kind: Annotated[OutputKind, FROM_TOML] = OutputKind.LOGITS
    """As `--output-kind`."""
    layout: Annotated[Layout, FROM_TOML] | None = None
    """As `--layout`."""
    size: Annotated[tuple[Size, Size], FROM_TOML] | None = None
    """Height and width, as `--size`."""
    minimum_os: str | None = None
    """As `--minimum-os`."""
    opset: int | None = Field(default=None, ge=1)
    """As `--opset`."""


class PipelineSection(Section):
    """What `deploykit pipeline` makes of the recipe, and what it judges that by."""

    targets: (
        Annotated[tuple[Annotated[Target, FROM_TOML], ...], FROM_TOML, AfterValidator(some), AfterValidator(once)]
        | None
    ) = None
    """The targets to export to; without it all that are installed."""
    precisions: (
        Annotated[tuple[Annotated[Precision, FROM_TOML], ...], FROM_TOML, AfterValidator(some), AfterValidator(once)]
        | None
    ) = None
    """The precisions of each target; without it fp32, fp16 and int8."""
    input_kind: Annotated[InputKind, FROM_TOML] = InputKind.TENSOR
    """As `--input-kind` of export."""
    output_kind: Annotated[OutputKind, FROM_TOML] = OutputKind.LOGITS
    """As `--output-kind` of export."""
    calibration: Text | None = None
    """As `--calibration` of export, relative to the recipe's folder."""
    calibration_images: int = Field(default=32, ge=8)
    """As `--calibration-images` of export."""
    max_drop: float | None = Field(default=None, ge=0, le=100)
    """As `--max-drop` of export."""
    data: Text | None = None
    """As `--data` of evaluate, relative to the recipe's folder."""
    samples: int = Field(default=32, ge=1, le=128)
    """As `--samples` of evaluate: how many synthetic portraits, where there is no `data`."""
    clips: int = Field(default=2, ge=0, le=64)
    """As `--clips` of evaluate."""


class RecipeFile(Section):
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
    inputs: Annotated[tuple[Input, ...], FROM_TOML, AfterValidator(some)]
    """What the network takes."""
    outputs: Annotated[tuple[Output, ...], FROM_TOML, AfterValidator(some)]
    """Every tensor that forward returns, in order."""
    checkpoint: CheckpointSection | None = None
    """Where the trained weights are."""
    expected: Expected = Expected()
    """How often each pass must fire."""
    tolerances: Tolerances = Tolerances()
    """How exact is exact enough."""
    variants: Annotated[tuple[Variant, ...], FROM_TOML] = ()
    """Named ways to export."""
    budgets: Annotated[tuple[BudgetSection, ...], FROM_TOML] = ()
    """What the gate holds exported files to."""
    pipeline: PipelineSection | None = None
    """What `deploykit pipeline` makes; without it the defaults."""

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

    @model_validator(mode="after")
    def _feedback_has_its_source(self) -> RecipeFile:
        scored = {output.name: output for output in self.outputs if output.deploy and len(output.classes) > 1}
        for item in self.inputs:
            if item.feedback is None:
                continue
            source = scored.get(item.feedback.output)
            if source is None:
                names = ", ".join(scored) or "none is there"
                raise ValueError(
                    f"feedback of {item.name} from a deployed output with at least two classes ({names}), "
                    f"not from {item.feedback.output}"
                )
            if item.feedback.class_name not in source.classes:
                raise ValueError(
                    f"feedback of {item.name} from a class of {source.name} ({', '.join(source.classes)}), "
                    f"not from {item.feedback.class_name}"
                )
        return self


class ProjectFile(Section):
    """``deploykit.toml`` in the current folder: the recipe that commands use when none is named, and budgets."""

    recipe: Text
    """A bundled name, or the path of a recipe relative to this file."""
    budgets: Annotated[tuple[ProjectBudgetSection, ...], FROM_TOML] = ()
    """What the gate holds exported files to, beside the budgets of their recipes."""
