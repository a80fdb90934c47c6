"""What passes between a pipeline and the processes that work for it: tasks to them, events from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploykit.stages.records import Settings, Stage


@dataclass(frozen=True)
class Task:
    """One stage to do. ``recipe`` and ``checkpoint`` have to be what the hashes say; paths are absolute.

    ``artifacts`` are the manifests of what the stage is given, ``records`` what it reads besides, ``recipes`` those of
    all. Files go below ``root``, the record to ``record`` there, what is not whole yet to ``work``. ``complete``: these
    are all artifacts of all recipes.
    """

    stage: Stage
    root: Path
    work: Path
    record: str
    recipe: Path = Path()
    recipe_sha256: str = ""
    settings: Settings | None = None
    checkpoint: Path | None = None
    checkpoint_sha256: str = ""
    checkpoint_key: str | None = None
    artifacts: tuple[Path, ...] = ()
    records: tuple[Path, ...] = ()
    recipes: tuple[Path, ...] = ()
    max_seconds: float = 0.0
    strict: bool = False
    complete: bool = False
    verbose: bool = False


@dataclass(frozen=True)
class Done:
    """A stage that came to its end: the files and folders that it put in place.

    ``failed`` says why its verdict is a failure, ``details`` are lines on that; ``skipped`` says why it has none,
    ``note`` what it comes to.
    """

    outputs: tuple[Path, ...] = ()
    failed: str = ""
    skipped: str = ""
    note: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """A line of progress."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The end of a stage: ``done``, or the ``error`` and the exit code that it stands for. Seconds are its own."""

    done: Done | None
    seconds: float
    cpu_seconds: float
    error: str = ""
    exit_code: int = 0
