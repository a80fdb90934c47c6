"""Tables of two exported files side by side."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from deploykit.inspection.difference import FileDifference, Row


def tables(found: FileDifference) -> Iterator[Table | str]:
    """Yield the figures and operations of both files, and the texts that differ; one line where nothing does."""
    yield f"A {found.first}\nB {found.second}"
    if found.same:
        yield "No difference in operations, sizes, inputs, outputs or metadata; values of weights are not compared."
        return
    numbers = Table(title="Figures and operations", title_justify="left")
    numbers.add_column("", overflow="fold")
    for name in ("A", "B", "B - A"):
        numbers.add_column(name, justify="right")
    for row in found.figures:
        numbers.add_row(*_cells(row), end_section=row is found.figures[-1])
    changed = [row for row in found.operations if row.change]
    for row in changed:
        numbers.add_row(*_cells(row))
    equal = len(found.operations) - len(changed)
    if equal:
        numbers.caption = f"{equal} more kinds of operation occur equally often in both"
    yield numbers
    if found.texts:
        texts = Table(title="What the files say", title_justify="left")
        for name in ("", "A", "B"):
            texts.add_column(name, overflow="fold")
        for name, (one, other) in found.texts.items():
            texts.add_row(name, one, other)
        yield texts


def _cells(row: Row) -> tuple[str, ...]:
    shown = ["-" if value is None else f"{value:,}" for value in (row.first, row.second)]
    change = "-" if row.change is None else f"{row.change:+,}" if row.change else "0"
    return (row.name, *shown, change)
