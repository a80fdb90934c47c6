"""Where results and progress go: tables and JSON to stdout, progress and summaries to stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console

_WIDE = 140


def stdout_console() -> Console:
    """Return the console of results; outside a terminal as wide as COLUMNS says, else enough not to cut a table."""
    return Console(file=sys.stdout, width=_width(sys.stdout), highlight=False, soft_wrap=False)


def stderr_console() -> Console:
    """Return the console of progress and summaries."""
    return Console(file=sys.stderr, width=_width(sys.stderr), highlight=False, stderr=True)


def _width(stream: TextIO) -> int | None:
    """Return the columns of ``stream``; None leaves it to the terminal, and to the variable COLUMNS."""
    return None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else _WIDE


@contextmanager
def progress(description: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows one line of progress on stderr: a moving one in a terminal, else each once."""
    console = stderr_console()
    if not console.is_terminal:
        last = [""]

        def say(message: str) -> None:
            if message != last[0]:
                console.print(f"{description}: {message}", markup=False)
                last[0] = message

        yield say
        return
    with console.status(description) as status:
        yield lambda message: status.update(f"{description}: {message}")


def print_json(record: dict[str, Any]) -> None:
    """Print ``record`` as strict JSON on stdout."""
    sys.stdout.write(json.dumps(record, indent=2, sort_keys=True, allow_nan=False) + "\n")
