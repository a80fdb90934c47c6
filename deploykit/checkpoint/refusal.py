"""How a checkpoint's own words are shown, and the one error for damaged bytes."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.errors import CheckpointError

SHOWN_CHARACTERS = 120


def shown(text: str) -> str:
    """Return ``text`` safe to print: no control characters or lone surrogates, at most 120 characters."""
    plain = text if text.isprintable() else ascii(text)[1:-1]
    return plain if len(plain) <= SHOWN_CHARACTERS else plain[: SHOWN_CHARACTERS - 3] + "..."


def listed(names: Sequence[str], limit: int = 10) -> str:
    """Return the first ``limit`` names, and how many more there are."""
    text = ", ".join(shown(name) for name in names[:limit])
    return text if len(names) <= limit else f"{text}, and {len(names) - limit} more"


def damaged(what: str) -> CheckpointError:
    """Return the error for bytes that are not what their format promises."""
    return CheckpointError(
        "the checkpoint is damaged",
        found=what,
        expected="a complete file, as torch.save or safetensors wrote it",
        next_step="copy or download it again, and compare its sha256 with the published one",
    )
