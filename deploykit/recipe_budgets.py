"""The budgets in a recipe and in ``deploykit.toml``: what the gate holds exported files to, and why."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from deploykit.gate_records import COUNTED, TIMES, Budget, Measure
from deploykit.recipe_tensors import FROM_TOML, Section, Text, not_blank, once
from deploykit.vocab import Precision, Target

# Below this an interval can hardly ever lie within the margin, see docs/decisions/0017-latency-verdicts.md.
SMALLEST_MARGIN = 0.01
_GROWING = (*COUNTED, Measure.LATENCY)


class BudgetSection(Section):
    """The most that exported files may cost. A budget without selectors is for all files of the recipe."""

    measure: Annotated[Measure, FROM_TOML]
    """What is bounded, with its unit; a point is a hundredth."""
    reason: Annotated[str, Field(min_length=10), AfterValidator(not_blank)]
    """Why the bound is what it is; it is shown with every finding."""
    limit: Annotated[float, Field(ge=0)] | None = None
    """The most that is allowed."""
    max_growth: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The most beyond the baseline, as a part of it: `0.02` is two per cent. Counted figures and latency only."""
    targets: Annotated[tuple[Annotated[Target, FROM_TOML], ...], FROM_TOML, AfterValidator(once)] = ()
    """The targets that it is for; none means all."""
    precisions: Annotated[tuple[Annotated[Precision, FROM_TOML], ...], FROM_TOML, AfterValidator(once)] = ()
    """The precisions that it is for; none means all."""
    devices: Annotated[tuple[Text, ...], FROM_TOML, AfterValidator(once)] = ()
    """The machines that `limit` is for, as `deploykit results` names them; times need one."""

    @model_validator(mode="after")
    def _bounds_what_can_be_bounded(self) -> BudgetSection:
        if self.limit is None and self.max_growth is None:
            raise ValueError("a limit, a max_growth, or both")
        if self.max_growth is not None and self.measure not in _GROWING:
            raise ValueError(
                f"limit alone for {self.measure}: max_growth is for {', '.join(_GROWING)}, which can be compared"
            )
        if self.measure is Measure.LATENCY and self.max_growth is not None and self.max_growth < SMALLEST_MARGIN:
            raise ValueError(
                f"max_growth of at least {SMALLEST_MARGIN:g} for {self.measure}: less than that is noise on any machine"
            )
        if self.limit is not None and self.measure in TIMES and not self.devices:
            raise ValueError(f"devices beside a limit of {self.measure}: seconds are those of one machine")
        if self.devices and self.limit is None:
            raise ValueError("devices beside a limit only: growth is measured on whatever machine there is")
        return self

    def record(self, source: str) -> Budget:
        """Return the same budget as a record that says where it is written."""
        return Budget(**self.model_dump(), source=source)


class ProjectBudgetSection(BudgetSection):
    """A budget of the whole project, for all of its recipes or some."""

    recipes: Annotated[tuple[Text, ...], FROM_TOML, AfterValidator(once)] = ()
    """The names of the recipes that it is for; none means all."""
