"""Tables of what a dry run found, one for each target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from deploykit.preflight.records import Finding, Preflight, TargetFindings, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST_LIST = 3
_COUNTED = (Verdict.OK, Verdict.REWRITTEN, Verdict.MANY, Verdict.REFUSED)


def tables(found: Preflight) -> Iterator[Table | str]:
    """Yield what was found, most serious first, and one line that sums it up for each target."""
    if found.simplified:
        yield _table(f"{found.recipe}: rewritten for every target", found.simplified)
    for one in found.targets:
        shown = [finding for finding in one.findings if finding.verdict is not Verdict.OK]
        if shown:
            yield _table(f"{found.recipe}: {one.target} {one.precision}, {one.converter}", shown)
        yield _summary(one)
    for skip in found.skipped:
        yield f"{skip.target}: skipped, {skip.reason}"


def _table(title: str, findings: Sequence[Finding]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("verdict", "construct"):
        table.add_column(name)
    table.add_column("places", justify="right")
    for name in ("where", "why", "what is done", "source"):
        table.add_column(name, overflow="fold")
    for one in findings:
        table.add_row(
            one.verdict.value, one.construct, str(one.places), _some(one.modules), one.reason, one.done, one.source
        )
    return table


def _some(modules: Sequence[str]) -> str:
    more = f", {len(modules) - LONGEST_LIST} more" if len(modules) > LONGEST_LIST else ""
    return ", ".join(modules[:LONGEST_LIST]) + more


def _summary(one: TargetFindings) -> str:
    counts = [f"{one.count(verdict)} {verdict}" for verdict in _COUNTED if one.count(verdict)]
    advice = [finding for finding in one.findings if finding.verdict is Verdict.ADVISORY]
    if advice:
        counts.append(f"{len(advice)} of advice")
    verdict = "the export will be refused" if one.refused else "nothing stands in the way of an export"
    return f"{one.target}: {one.operations} operations; {', '.join(counts)}: {verdict}"
