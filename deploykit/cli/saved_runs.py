"""What the commands that show saved runs say of them: what was left out, and which figures are in doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploykit.results.store import SavedRuns

_CUT_SHORT, _DISTURBED = "*", "†"
FOOTNOTES = {
    _CUT_SHORT: "*: the run was ended early, and this is what was measured until then.",
    _DISTURBED: "†: something disturbed the run; deploykit results --csv says what.",
}


def signs_of(cut_short: str, disturbed: Sequence[str]) -> str:
    """Return the signs of a figure in doubt; an empty text for one that is not."""
    return (_CUT_SHORT if cut_short else "") + (_DISTURBED if disturbed else "")


def say_left_out(saved: SavedRuns) -> None:
    """Name on stderr what in the folder of results is not counted, and why."""
    from deploykit.cli.console import stderr_console

    console = stderr_console()
    for error in saved.damaged:
        console.print(f"left out: {error}", markup=False, soft_wrap=True)
    for path in saved.foreign:
        console.print(f"passed over: {path} is no record of deploykit", markup=False, soft_wrap=True)
    for path, other in saved.repeated:
        console.print(f"counted once: {path} holds the same run as {other}", markup=False, soft_wrap=True)
