"""How a pipeline goes, on stderr: a line when a stage begins and when it ends, in a terminal also what it does."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from deploykit.cli.console import stderr_console

if TYPE_CHECKING:
    from rich.status import Status

    from deploykit.stages.records import Stage, StageResult


class Progress:
    """Hears what a pipeline does and prints it; used as a context, so that the terminal is left as it was."""

    def __init__(self) -> None:
        self._console = stderr_console()
        self._doing: dict[str, str] = {}
        self._status: Status | None = None

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._status = self._console.status("pipeline")
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._status is not None:
            self._status.stop()

    def started(self, stage: Stage, because: str) -> None:
        """Print that ``stage`` has begun, and why it is done."""
        self._doing[stage.name] = ""
        self._print(f"{stage.name}: begins ({because})")

    def said(self, stage: Stage, text: str) -> None:
        """Show what ``stage`` is doing, in a terminal alone."""
        self._doing[stage.name] = text
        self._show()

    def ended(self, result: StageResult) -> None:
        """Print what became of a stage, and why it did not pass."""
        from deploykit.stages.records import Outcome

        self._doing.pop(result.stage, None)
        if result.outcome is not Outcome.UP_TO_DATE:
            spent = f" in {result.seconds:.1f} s" if result.seconds else ""
            why = f": {result.reason}" if result.reason else ""
            self._print(f"{result.stage}: {result.outcome}{spent}{why}")
            for line in result.details:
                self._print(f"{result.stage}: {line}")
        self._show()

    def _print(self, text: str) -> None:
        self._console.print(f"pipeline: {text}", markup=False, soft_wrap=True)

    def _show(self) -> None:
        if self._status is not None:
            self._status.update("; ".join(f"{name}: {text}" for name, text in self._doing.items()) or "pipeline")
