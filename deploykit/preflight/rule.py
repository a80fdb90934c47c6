"""The form of a rule."""

from __future__ import annotations

from dataclasses import dataclass

from deploykit.preflight.predicates import Predicate, always
from deploykit.preflight.records import Verdict
from deploykit.vocab import FLOAT_PRECISIONS, Precision, Target

LEFT = "nothing: it is exported as it is"
REFUSED = "nothing: the export will be refused"


@dataclass(frozen=True)
class Rule:
    """``operations`` (ATen names; none stands for all) of which ``holds`` is true have ``verdict`` on ``target``."""

    construct: str
    operations: tuple[str, ...]
    target: Target
    verdict: Verdict
    reason: str
    source: str
    holds: Predicate = always
    precisions: tuple[Precision, ...] = FLOAT_PRECISIONS
    done: str = LEFT
