"""The table of ``deploykit verify --layers``: one row a module, worst first, readable at a hundred columns."""

from __future__ import annotations

from collections.abc import Iterator

from rich import box
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from deploykit.attribution.records import Attribution, ModuleError, Part, Verdict

_JOINED = 3


def of_attribution(one: Attribution, layers: int = 12) -> Iterator[RenderableType]:
    """Yield what to print: the sentence, so many of the worst modules, and what was not looked at."""
    yield escape(one.sentence)
    yield ""
    yield (
        f"Relative L2, the worst value of each module on {escape(', '.join(one.samples))}. local: what it adds to the "
        "values that the file hands to it; bound: its worst channel's share of what rounding may add; cumulative: the "
        "error until here."
    )
    yield _modules(one, layers)
    left = len(one.rows) - layers
    if left > 0:
        yield f"{left} more modules, all of a smaller share."
    yield escape(
        f"{one.matched} of {one.matched + one.unmatched} values of the network matched in the file, "
        f"{one.ambiguous} left out as ambiguous; {one.unmatched_file_values} of the file's {one.file_values} values "
        "stand for none by themselves."
    )
    yield escape(f"file run by {one.runtime}; reference executor: {one.reference_executor or 'none'}")
    for name, reason in one.not_available.items():
        yield escape(f"{name} n/a: {reason}")
    for note in one.notes:
        yield escape(f"note: {note}")


def _modules(one: Attribution, layers: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("module", overflow="fold")
    for name in ("local", "bound", "cumulative", *(part.value for part in Part)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in one.rows[:layers]:
        table.add_row(*_cells(row), style="red" if row.verdict is Verdict.ACCUSED else None)
    return table


def _cells(row: ModuleError) -> tuple[str, ...]:
    more = f" and {len(row.joined) - _JOINED} more" if len(row.joined) > _JOINED else ""
    joined = f" + {', '.join(row.joined[:_JOINED])}{more}" if row.joined else ""
    return (
        escape(f"{row.module}{joined}: {', '.join(row.operations)}"),
        _error(row.local_error),
        "n/a" if row.ratio is None else (f"{row.ratio:.0%}" if row.ratio < 10 else f"{row.ratio:.0e}x"),
        _error(row.cumulative_error),
        _error(row.precision_error),
        _error(row.converter_error),
        _error(row.kernel_error),
        row.verdict.value + (f"\n{row.cause}" if row.cause else ""),
    )


def _error(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1e}"
