"""``deploykit devices``: what bench --device can measure on from here, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from deploykit.devices import ReachableDevices


def devices(
    benchmark_model: Annotated[
        Path | None,
        typer.Option(
            "--benchmark-model",
            help="LiteRT's benchmark_model for Android; DEPLOYKIT_BENCHMARK_MODEL if not given.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON record on stdout.")] = False,
) -> None:
    """Show on what devices bench can measure from this machine, and what is missing for each kind."""
    from deploykit.cli.console import print_json, progress, stdout_console
    from deploykit.devices import list_devices
    from deploykit.records import versioned

    with progress("devices") as say:
        say("asking for devices")
        found = list_devices(benchmark_model)
    if as_json:
        print_json(versioned("devices", found))
        return
    stdout_console().print(_table(found))


def _table(rows: Sequence[ReachableDevices]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Devices", title_justify="left")
    for name in ("--device", "ready", "found", "accelerators", "tested", "what to do"):
        table.add_column(name, overflow="fold")
    for row in rows:
        advice = f"{row.missing}: {row.next_step}" if row.missing else ""
        tested = row.evidence if row.run_on_hardware else f"never run on hardware by us; {row.evidence}"
        cells = (row.name_it, "yes" if row.ready else "no", "\n".join(row.found) or "none", ", ".join(row.accelerators))
        table.add_row(*(escape(cell) for cell in (*cells, tested, advice)))
    return table
