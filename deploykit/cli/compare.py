"""``deploykit compare``: whether one of two exported files is faster, and how small a difference would have shown."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.comparison_records import Estimate, LatencyComparison, Side


class FailIf(StrEnum):
    """Verdicts that a command may be told to fail on."""

    SLOWER = "slower"
    NOT_FASTER = "not-faster"


def compare(
    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B",
            help="Exported files, their folders, or pytorch:RECIPE; B is judged relative to A.",
            show_default=False,
        ),
    ] = None,
    *,
    margin: Annotated[str, typer.Option("--margin", help="Smaller differences are none; 2% or 0.02.")] = "2%",
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Run for so long unless it is clear before.")
    ] = 30,
    threads: Annotated[
        int, typer.Option("--threads", help="Threads of both runtimes, and cores that they run on.")
    ] = 1,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help="What describes the inputs of files without a manifest.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="A photo, or a folder of photos, to run on.", show_default=False),
    ] = None,
    instructions: Annotated[
        bool, typer.Option("--instructions", help="Count the instructions of one inference too, with valgrind.")
    ] = False,
    fail_if: Annotated[
        FailIf | None,
        typer.Option("--fail-if", help="Exit with 1 on this verdict; inconclusive is not faster.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the bootstrap.")] = 2026,
    as_json: JsonOption = False,
) -> None:
    """Say whether B is faster or slower than A on this machine, beside A against itself.

    Both run in turn in one process, on the same core, in sessions that are made anew in rounds. The verdict is faster,
    slower, no difference above the margin, or inconclusive; each of them exits with 0 unless --fail-if says otherwise.
    """
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.errors import EXIT_INTERRUPTED
    from deploykit.latency.arguments import check_compare
    from deploykit.records import versioned

    sides, part = tuple(named or ()), _part(margin)
    check_compare(
        sides,
        margin=part,
        max_seconds=max_seconds,
        threads=threads,
        recipe=recipe,
        images=images,
        instructions=instructions,
    )
    # Only now what takes seconds to import.
    from deploykit.comparison import compare as run

    first, second = sides
    with progress("compare") as say:
        found = run(
            first,
            second,
            margin=part,
            max_seconds=max_seconds,
            threads=threads,
            recipe=recipe,
            images=images,
            instructions=instructions,
            seed=seed,
            report=say,
        )
    console = stderr_console()
    console.print(_how(found), markup=False)
    for warned in found.warnings:
        console.print(f"warning: {warned.problem}: {warned.remedy}", markup=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    if as_json:
        print_json(versioned("compare", found))
    else:
        stdout_console().print(_table(found))
        for line in _sentences(found):
            stdout_console().print(line, markup=False)
    if not found.complete:
        raise typer.Exit(EXIT_INTERRUPTED)
    if _fails(found, fail_if):
        raise typer.Exit(1)


def _part(text: str) -> float:
    """Return 0.02 for 2% and for 0.02."""
    from deploykit.errors import UsageError

    number = text.strip()
    try:
        return float(number[:-1]) / 100 if number.endswith("%") else float(number)
    except ValueError as error:
        raise UsageError("--margin is no number.", found=text, expected="a part such as 2% or 0.02") from error


def _fails(found: LatencyComparison, fail_if: FailIf | None) -> bool:
    from deploykit.comparison_records import Verdict

    verdict = found.judgement.verdict
    if fail_if is FailIf.SLOWER:
        return verdict is Verdict.SLOWER
    return fail_if is FailIf.NOT_FASTER and verdict is not Verdict.FASTER


def _how(found: LatencyComparison) -> str:
    plural = "" if found.threads == 1 else "s"
    pinned = f" on core{plural} {', '.join(map(str, found.affinity))}" if found.affinity else ", not pinned"
    return (
        f"{found.device}: {found.threads} thread{plural}{pinned}, {found.judgement.rounds} rounds of new sessions in "
        f"{found.seconds:.1f} s of {found.max_seconds:g}."
    )


def _table(found: LatencyComparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Latency of one inference", title_justify="left")
    table.add_column("")
    for name, side in (("A", found.first), ("B", found.second)):
        table.add_column(f"{name}: {escape(side.name)}", justify="right", overflow="fold")
    table.add_column("B / A", justify="right")
    judged = found.judgement
    table.add_row("median ms", _milliseconds(found.first), _milliseconds(found.second), _interval(judged.effect))
    table.add_row("A once more / A", "", "", _interval(judged.control))
    for name, first, second in _counted(found):
        ratio = f"{second / first:.3f}" if first and second is not None else "-"
        table.add_row(escape(name), _number(first), _number(second), ratio)
    table.add_row("runtime", escape(found.first.runtime), escape(found.second.runtime), "")
    return table


def _counted(found: LatencyComparison) -> list[tuple[str, int | None, int | None]]:
    one, two = found.first, found.second
    rows: list[tuple[str, int | None, int | None]] = [
        (name, one.figures.get(name), two.figures.get(name)) for name in dict.fromkeys((*one.figures, *two.figures))
    ]
    if one.instructions is not None or two.instructions is not None:
        rows.append(("instructions", one.instructions, two.instructions))
    return rows


def _sentences(found: LatencyComparison) -> list[str]:
    from deploykit.comparison_records import Verdict

    judged = found.judgement
    words = {
        Verdict.FASTER: f"B is faster than A, {_bounds(judged.effect)}",
        Verdict.SLOWER: f"B is slower than A, {_bounds(judged.effect)}",
        Verdict.SAME: f"no difference above {judged.margin:.1%} between B and A",
        Verdict.INCONCLUSIVE: f"inconclusive whether B and A differ by more than {judged.margin:.1%}",
    }
    lines = [f"Verdict: {words[judged.verdict]} ({judged.reason})."]
    if judged.noise_floor is not None and judged.smallest_effect is not None and judged.level is not None:
        lines.append(
            f"Noise floor, from A against itself in this run: {judged.noise_floor:.1%}. "
            f"Smallest difference that would have shown here four times out of five: {judged.smallest_effect:.1%}. "
            f"Confidence of the interval of B / A: {judged.level:.3%}."
        )
    if not found.complete:
        lines.append("Interrupted: this is what there was until then.")
    return lines


def _bounds(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.ratio - 1:+.1%} [{estimate.low - 1:+.1%}, {estimate.high - 1:+.1%}]"


def _milliseconds(side: Side) -> str:
    return "-" if side.median_s is None else f"{side.median_s * 1000:.3f}"


def _interval(estimate: Estimate | None) -> str:
    return "-" if estimate is None else f"{estimate.ratio:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"


def _number(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
