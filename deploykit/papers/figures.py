"""``benchmarks/papers.toml``: every row of every table of results in the five papers, held against its model."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, model_validator

from deploykit.resources import bundled
from deploykit.vocab import Convention

FILE = "papers.toml"

# TOML has lists and strings where Python has tuples and enums; everything else has to be of its own type.
_FROM_TOML = Strict(False)
Text = Annotated[str, Field(pattern=r"\S")]
Positive = Annotated[float, Field(gt=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Whole = Annotated[int, Field(ge=1)]
Percentages = Annotated[dict[Text, Percent], Field(min_length=1)]
Size = Annotated[tuple[Whole, Whole], _FROM_TOML]
# The keys of a row that say what was measured; the others are the printed figures.
_DESCRIBING = {"method", "setting", "recipe", "convention", "input_size", "input_channels", "note"}


class _Entry(BaseModel):
    """A table of the file: unknown keys are refused and values are never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Row(_Entry):
    """One row as printed; what its cell leaves empty is None. Units are in the names.

    ``recipe`` is the recipe whose network, as published, the row speaks of; ``convention`` the counting in which
    its FLOPs come out. Percentages of IoU are by dataset (``edge_iou_percent``: by model).
    """

    method: Text
    setting: Text | None = None
    recipe: Text | None = None
    convention: Annotated[Convention, _FROM_TOML] | None = None
    input_size: Size | None = None
    input_channels: Whole | None = None
    params_millions: Positive | None = None
    flops_giga: Positive | None = None
    fps: Positive | None = None
    latency_ms: Positive | None = None
    miou_percent: Percentages | None = None
    miou_quoted_percent: Percentages | None = None
    edge_iou_percent: Percentages | None = None
    edge_iou_increase_points: Positive | None = None
    aacc_percent: Percent | None = None
    macc_percent: Percent | None = None
    boundary_f1: Annotated[float, Field(ge=0, le=1)] | None = None
    sigma_pixels: Whole | None = None
    dilation: Whole | None = None
    convolution_kernel: Whole | None = None
    pooling_kernel: Whole | None = None
    trained_on: Text | None = None
    note: Text | None = None

    @model_validator(mode="after")
    def _counted_somehow(self) -> Row:
        if self.recipe is not None and self.flops_giga is not None and self.convention is None:
            raise ValueError("a convention beside the FLOPs of a network that is compared")
        if self.convention is not None and self.flops_giga is None:
            raise ValueError("FLOPs beside a convention")
        return self

    def figures(self) -> dict[str, object]:
        """Return key → value of what is printed in the row's cells."""
        return self.model_dump(exclude_none=True, exclude=_DESCRIBING)


class Table(_Entry):
    """One table, or what the text states outside of one. ``columns`` says what each key of its rows means."""

    number: Whole | None = None
    name: Text | None = None
    caption: Text
    columns: Annotated[dict[str, Text], Field(min_length=1)]
    device: Text | None = None
    input_size: Size | None = None
    rows: Annotated[tuple[Row, ...], _FROM_TOML, Field(min_length=1)]

    @property
    def place(self) -> str:
        """Where it stands in its paper: ``Table 3``, or a section."""
        return self.name or f"Table {self.number}"

    def size_of(self, row: Row) -> tuple[int, int] | None:
        """Return height and width of the input that ``row`` speaks of, where the paper says them."""
        return row.input_size or self.input_size

    @model_validator(mode="after")
    def _complete(self) -> Table:
        if (self.number is None) == (self.name is None):
            raise ValueError("either number or name")
        used = {key for row in self.rows for key in row.figures()}
        if used != set(self.columns):
            raise ValueError(f"columns for exactly the keys of the rows, but these differ: {used ^ set(self.columns)}")
        if used & {"fps", "latency_ms"} and self.device is None:
            raise ValueError("the device of its times")
        if any(row.flops_giga is not None and row.recipe and self.size_of(row) is None for row in self.rows):
            raise ValueError("the input size of the FLOPs of a network that is compared")
        return self


class Counting(_Entry):
    """The form of a network in which ``figure``, its parameters or a convention's cost, is compared.

    ``merged``: BatchNorm folded and branches merged, else as it is trained. ``without`` names outputs that are left
    out, with all that only they need.
    """

    figure: Literal["parameters"] | Annotated[Convention, _FROM_TOML]
    merged: bool = False
    without: Annotated[tuple[Text, ...], _FROM_TOML] = ()


class Remark(_Entry):
    """What a reader of the comparison has to know about some of a paper's networks."""

    recipes: Annotated[tuple[Text, ...], _FROM_TOML, Field(min_length=1)]
    text: Text


class Paper(_Entry):
    """One paper. ``network`` is its name in ``deploykit.models``, ``recipes`` are those of its own network.

    ``miou`` says what its mean IoU averages over: the portrait's IoU over images (PortraitNet, equation 10), or
    the two classes.
    """

    network: Text
    name: Text
    title: Text | None = None
    year: Annotated[int, Field(ge=2010, le=2100)] | None = None
    venue: Text | None = None
    miou: Literal["portrait", "two-class"]
    recipes: Annotated[tuple[Text, ...], _FROM_TOML, Field(min_length=1)]
    counting: Annotated[tuple[Counting, ...], _FROM_TOML]
    remarks: Annotated[tuple[Remark, ...], _FROM_TOML] = ()
    tables: Annotated[tuple[Table, ...], _FROM_TOML, Field(min_length=1)]

    def counting_of(self, figure: str) -> Counting:
        """Return how ``figure``, ``parameters`` or a convention, is counted on this paper's network."""
        return next(one for one in self.counting if one.figure == figure)

    @model_validator(mode="after")
    def _consistent(self) -> Paper:
        places = [table.place for table in self.tables]
        if len(set(places)) != len(places):
            raise ValueError("each table once")
        if not {recipe for remark in self.remarks for recipe in remark.recipes} <= set(self.recipes):
            raise ValueError("remarks on its own recipes alone")
        return self


class PapersFile(_Entry):
    """The whole of ``benchmarks/papers.toml``."""

    format_version: Literal[1]
    papers: Annotated[tuple[Paper, ...], _FROM_TOML, Field(min_length=1)]

    @model_validator(mode="after")
    def _known(self) -> PapersFile:
        recipes = [recipe for paper in self.papers for recipe in paper.recipes]
        if len(set(recipes)) != len(recipes):
            raise ValueError("each recipe under one paper")
        counted = {(recipe, one.figure) for paper in self.papers for recipe in paper.recipes for one in paper.counting}
        for _, table, row in rows(self.papers):
            if row.recipe is not None and row.recipe not in recipes:
                raise ValueError(f"recipes that a paper lists, not {row.recipe} in {table.place}")
            wanted = {row.convention, "parameters" if row.params_millions else None} - {None}
            if row.recipe is not None and not {(row.recipe, figure) for figure in wanted} <= counted:
                raise ValueError(f"counting of {row.recipe} for {table.place}")
        return self


def rows(papers: Iterable[Paper]) -> Iterator[tuple[Paper, Table, Row]]:
    """Yield every row with its table and paper, in the order of the file."""
    for paper in papers:
        for table in paper.tables:
            for row in table.rows:
                yield paper, table, row


@cache
def load_papers() -> tuple[Paper, ...]:
    """Return the five papers."""
    text = (bundled("benchmarks") / FILE).read_text("utf-8")
    return PapersFile.model_validate(tomllib.loads(text)).papers
