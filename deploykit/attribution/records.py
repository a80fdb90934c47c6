"""What the attribution of an error to modules found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from deploykit.vocab import Precision, Target


class Verdict(StrEnum):
    """Whether a module makes an error that rounding does not explain."""

    ACCUSED = "accused"
    CLEAN = "clean"


class Part(StrEnum):
    """Where an error comes from; the three add up to the whole, as differences of values.

    ``precision``: rounding the exact graph to the precision of the file. ``converter``: what the file computes, by a
    reference executor, against the rounded graph. ``kernel``: the runtime against the reference executor.
    """

    PRECISION = "precision"
    CONVERTER = "converter"
    KERNEL = "kernel"


@dataclass(frozen=True)
class ModuleError:
    """The errors at the values that one module makes, each relative L2 and the worst of its values and samples.

    ``module`` is the module path in the network and ``joined`` the others whose layers are folded or merged into it,
    or whose values the file does not hold between this one and the last one matched. ``local_error`` is what the module
    adds to the values that the file itself hands to it, ``explained`` how much of that rounding explains; it is
    accused where ``local_error`` of a channel exceeds its bound ``ratio`` > 1 times. ``value`` is the name in the file
    of the value with the largest ratio. Errors that were not measured are None; ``Attribution.not_available`` says why.
    ``cause`` says where the error of an accused module comes from.
    """

    module: str
    joined: tuple[str, ...]
    operations: tuple[str, ...]
    matched: int
    unmatched: int
    value: str
    local_error: float | None
    explained: float | None
    ratio: float | None
    cumulative_error: float | None
    precision_error: float | None
    converter_error: float | None
    kernel_error: float | None
    verdict: Verdict
    cause: Part | None = None


@dataclass(frozen=True)
class Attribution:
    """The error of one file by module, worst first; ``sentence`` names the first module where it jumps.

    ``file_values`` counts the values that the file computes, ``unmatched_file_values`` those that stand for no value
    of the network by themselves, ``ambiguous`` the places left out because several values fit. ``not_available`` says
    of each part that could not be measured why.
    """

    artifact: str
    target: Target
    precision: Precision
    samples: tuple[str, ...]
    runtime: str
    reference_executor: str | None
    rows: tuple[ModuleError, ...]
    sentence: str
    matched: int
    unmatched: int
    ambiguous: int
    file_values: int
    unmatched_file_values: int
    not_available: dict[str, str]
    notes: tuple[str, ...] = ()

    @property
    def accused(self) -> tuple[ModuleError, ...]:
        """The accused modules, worst first."""
        return tuple(row for row in self.rows if row.verdict is Verdict.ACCUSED)

    @property
    def passed(self) -> bool:
        """Whether something could be matched and no module is accused."""
        return self.matched > 0 and not self.accused
