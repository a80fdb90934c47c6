"""Where results and progress go: tables and JSON to stdout, progress and summaries to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console


def stdout_console() -> Console:
    """Return the console of results; outside a terminal it is wide enough not to cut a table."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else 140, highlight=False, soft_wrap=False)


def stderr_console() -> Console:
    """Return the console of progress and summaries."""
    return Console(file=sys.stderr, width=None if sys.stderr.isatty() else 140, highlight=False, stderr=True)


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
