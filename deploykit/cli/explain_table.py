"""Tables of what each pass of an export did."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from deploykit.explain import Explanation, PassEffect


def tables(explanations: tuple[Explanation, ...]) -> Iterator[Table]:
    """Yield one table for each target; passes that found nothing to do are left out of it, and counted in its title."""
    for one in explanations:
        shown = [effect for effect in one.passes if effect.fired or effect.skipped]
        quiet = len(one.passes) - len(shown)
        title = f"Passes for {one.target}" + (f" ({quiet} more found nothing to look at)" if quiet else "")
        table = Table(title=title, title_justify="left")
        table.add_column("pass", overflow="fold")
        for name in ("done", "operations", "transposes", "MACs", "weights"):
            table.add_column(name, justify="right")
        table.add_column("what", overflow="fold")
        for effect in shown:
            table.add_row(*_cells(effect), end_section=effect is shown[-1])
        yield table


def _cells(effect: PassEffect) -> tuple[str, ...]:
    before, after = effect.before, effect.after
    text = [f"{count}x {detail}" if count > 1 else detail for detail, count in effect.did.items()]
    left = [f"left alone, {count}x: {reason}" for reason, count in effect.skipped.items()]
    on_file = "in the file" if effect.on_file else ""
    return (
        effect.name,
        str(effect.fired),
        on_file or _change(before.operations, after.operations),
        "" if on_file else _change(before.transposes, after.transposes),
        "" if on_file else _change(before.macs, after.macs, 1e6, " M"),
        "" if on_file else _change(before.weight_bytes, after.weight_bytes, 1e3, " kB"),
        "; ".join((*text[:3], *left[:1])),
    )


def _change(before: int, after: int, unit: float = 1, suffix: str = "") -> str:
    form = "{:.0f}" if unit == 1 else "{:.2f}"
    shown = [form.format(value / unit) for value in (before, after)]
    return f"{shown[1]}{suffix}" if before == after else f"{shown[0]} → {shown[1]}{suffix}"
