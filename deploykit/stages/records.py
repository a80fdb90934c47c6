"""Frozen records of a pipeline: its stages, what became of each, and the whole run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from deploykit.errors import EXIT_BUG, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_PASS, EXIT_USER
from deploykit.records import FileHash
from deploykit.vocab import InputKind, OutputKind, Precision, Target


class StageKind(StrEnum):
    """What a stage does, in the order of the line."""

    VERIFY_REPARAM = "verify-reparam"
    EXPORT = "export"
    VERIFY = "verify"
    EVALUATE = "evaluate"
    BENCH = "bench"
    GATE = "gate"
    REPORT = "report"


# What measures time: nothing else runs meanwhile.
ALONE = (StageKind.BENCH, StageKind.GATE)
# What a user may leave out.
OPTIONAL = (StageKind.VERIFY, StageKind.EVALUATE, StageKind.BENCH, StageKind.GATE, StageKind.REPORT)


class Outcome(StrEnum):
    """What became of a stage; all but the first two always carry a reason."""

    DONE = "done"
    UP_TO_DATE = "up to date"
    SKIPPED = "skipped"
    FAILED = "failed"
    NOT_RUN = "not run"
    INTERRUPTED = "interrupted"

    @property
    def passed(self) -> bool:
        """Whether there is a result that was judged well."""
        return self in (Outcome.DONE, Outcome.UP_TO_DATE)


@dataclass(frozen=True)
class Settings:
    """How one recipe is exported and judged: its ``[pipeline]`` section, with what the command line says instead.

    Folders are absolute; None stands for synthetic portraits.
    """

    input_kind: InputKind
    output_kind: OutputKind
    calibration: Path | None
    calibration_images: int
    max_drop: float | None
    data: Path | None
    samples: int
    clips: int


@dataclass(frozen=True)
class Stage:
    """One thing to do, named ``recipe/kind`` or ``recipe/kind/target-precision``; that of all recipes has no recipe.

    ``needs`` are stages that have to have passed before, ``after`` those that have to be over in whichever way.
    ``takes`` are the exports whose artifacts it is given, ``reads`` the stages whose records it is given, both as far
    as they passed. ``skip`` says why it is not done.
    """

    name: str
    kind: StageKind
    recipe: str = ""
    target: Target | None = None
    precision: Precision | None = None
    needs: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    skip: str = ""

    @property
    def alone(self) -> bool:
        """Whether nothing else may run meanwhile."""
        return self.kind in ALONE


@dataclass(frozen=True)
class StageResult:
    """What became of one stage. ``because`` says why it was done; ``reason`` why it did not pass, or what it came to.

    ``details`` are lines on a failure: of a gate each finding that fails, and the command that measures it again.
    ``outputs`` are its files with their hashes, relative to the pipeline's folder; ``exit_code`` is that of a command
    that ends like this. Seconds are those of the run that made the outputs, which may be an earlier one.
    """

    stage: str
    kind: StageKind
    recipe: str
    target: Target | None
    precision: Precision | None
    outcome: Outcome
    reason: str = ""
    because: str = ""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    exit_code: int = EXIT_PASS
    outputs: tuple[FileHash, ...] = ()
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class PipelineRun:
    """All stages of one run, in order. ``notes`` say what was cleaned up on the way."""

    output_dir: Path
    stages: tuple[StageResult, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing failed and nothing was left undone."""
        return self.exit_code == EXIT_PASS

    @property
    def interrupted(self) -> bool:
        """Whether it was ended before it was done."""
        return any(one.outcome is Outcome.INTERRUPTED for one in self.stages)

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends like this: a bug outweighs a verdict, a verdict a user's mistake.

        One that was interrupted is not known to end in either.
        """
        if self.interrupted:
            return EXIT_INTERRUPTED
        codes = {one.exit_code for one in self.stages}
        return next((code for code in (EXIT_BUG, EXIT_FAILED, EXIT_USER) if code in codes), EXIT_PASS)

    @property
    def nothing_to_do(self) -> bool:
        """Whether every stage was up to date or left out."""
        return all(one.outcome in (Outcome.UP_TO_DATE, Outcome.SKIPPED) for one in self.stages)

    def count(self, outcome: Outcome) -> int:
        """Return how many stages came to ``outcome``."""
        return sum(one.outcome is outcome for one in self.stages)
