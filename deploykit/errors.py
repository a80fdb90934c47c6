"""The errors that a user can cause, each said once and in full; everything else is a bug and stays a traceback."""

from __future__ import annotations

EXIT_PASS = 0
EXIT_FAILED = 1
EXIT_USER = 2
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class DeploykitError(Exception):
    """Something the user can fix: what was found, what was expected, where, and what to do next.

    ``exit_code`` is what the command line returns for it.
    """

    exit_code = EXIT_USER

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        found: str | None = None,
        expected: str | None = None,
        next_step: str | None = None,
    ) -> None:
        self.message = message
        self.where = where
        self.found = found
        self.expected = expected
        self.next_step = next_step
        super().__init__(self.render())

    def render(self) -> str:
        """Return the whole error as lines of plain text, the message first."""
        rows = (
            ("where", self.where),
            ("found", self.found),
            ("expected", self.expected),
            ("next", self.next_step),
        )
        return "\n".join([self.message, *(f"  {label}: {text}" for label, text in rows if text)])


class RecipeError(DeploykitError):
    """A recipe that cannot be read, is not valid or names something that does not exist."""


class CheckpointError(DeploykitError):
    """A checkpoint that cannot be read safely, or does not fit its network."""


class NotFiniteError(CheckpointError):
    """A checkpoint with NaN or infinity in a tensor: no verification of it can pass."""

    exit_code = EXIT_FAILED


class ImageError(DeploykitError):
    """An image that cannot be read or does not fit."""


class CaptureError(DeploykitError):
    """A network that cannot be captured as a graph."""


class TargetError(DeploykitError):
    """A target that is not installed, or cannot take what was asked of it."""


class ArtifactError(DeploykitError):
    """An exported file or its manifest that is missing, damaged or not understood."""


class DeviceError(DeploykitError):
    """A device that cannot be reached, was lost, or cannot run what was asked of it."""


class UsageError(DeploykitError):
    """Arguments that do not go together."""


class VerificationError(DeploykitError):
    """A result that is not equivalent within its tolerance: a verdict, not a mistake of the user."""

    exit_code = EXIT_FAILED
