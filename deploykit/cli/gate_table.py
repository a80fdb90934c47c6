"""The tables of ``deploykit gate``: findings, and what an update changes in the baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.gate.baseline import Change
    from deploykit.gate_records import GateReport


def gate_table(report: GateReport) -> Table:
    """Return the findings, what fails first: measured, limit, and by how much."""
    from rich.markup import escape
    from rich.table import Table

    from deploykit.report.gate_words import amount, beyond, bound, state, worst_first

    table = Table(title="Gate", title_justify="left")
    for column in ("verdict", "artifact", "rule", "measured", "limit", "by"):
        table.add_column(column, overflow="fold")
    for one in worst_first(report):
        figures = (amount(one.measured, one.unit), bound(one), beyond(one))
        cells = (state(one), one.subject, one.rule, *figures)
        table.add_row(*(escape(cell) for cell in cells), style="bold red" if one.fails else None)
    return table


def reasons(report: GateReport) -> Iterator[str]:
    """Yield the reason of each finding that is no plain pass, and the command that shows it again."""
    from deploykit.gate_records import GateVerdict
    from deploykit.report.gate_words import state, worst_first

    for one in worst_first(report):
        if one.fails or one.advice or one.verdict is not GateVerdict.PASS:
            yield f"{state(one)}: {one.rule} of {one.subject}: {one.reason}"
            if one.command:
                yield f"  again: {one.command}"


def changes_table(found: Sequence[Change]) -> Table:
    """Return what an update of the baseline changes."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Changes of the baseline", title_justify="left")
    for column in ("artifact", "what", "before", "after"):
        table.add_column(column, overflow="fold")
    for one in found:
        table.add_row(escape(one.artifact), one.what, escape(one.before or "-"), escape(one.after or "-"))
    return table
