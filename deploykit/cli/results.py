"""``deploykit results``: what was saved by ``bench --save``, newest figures, their course, or all rows as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import JsonOption, VerboseOption
from deploykit.cli.saved_runs import FOOTNOTES, say_left_out, signs_of

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.errors import UsageError
    from deploykit.results.series import Point, Series
    from deploykit.results.store import SavedRuns

_COLUMNS = (
    "network", "target", "precision", "runtime", "threads", "accelerator", "driver", "machine", "started", "median_s",
    "low_s", "high_s", "runs", "size_bytes", "content_hash", "artifact", "complete", "record", "stopped", "preempted",
    "cut_short", "disturbed",
)  # fmt: skip


def results(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[FOLDER]", help="Saved runs by machine.", show_default="benchmarks/results"),
    ] = None,
    *,
    network: Annotated[str | None, typer.Option("--network", help="Only this network.", show_default=False)] = None,
    machine: Annotated[
        str | None, typer.Option("--machine", help="Only machines whose name holds this.", show_default=False)
    ] = None,
    trend: Annotated[bool, typer.Option("--trend", help="Every saved figure, oldest first, with its change.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every saved figure as CSV.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List the saved runs: the newest figure of each network, form, runtime and machine.

    Figures of different days or machines are shown beside each other and never divided into a verdict: deploykit
    compare measures two files in one run. A damaged record is named and left out, and the exit code is then 2.
    """
    from deploykit.cli.console import print_json, stdout_console
    from deploykit.errors import EXIT_USER, UsageError
    from deploykit.records import versioned
    from deploykit.results.series import series_of
    from deploykit.results.store import FOLDER, read_runs

    del verbose
    if as_csv and as_json:
        raise UsageError("--csv and --json do not go together.", found="both", expected="one of them")
    place = folder or FOLDER
    if not place.is_dir():
        raise UsageError(
            "There are no saved runs.",
            where=str(place),
            found="a file" if place.exists() else "nothing",
            expected="a folder that deploykit bench --save wrote",
            next_step="measure with: deploykit bench --save",
        )
    saved = read_runs(place)
    say_left_out(saved)
    found = series_of(saved.runs, network=network, machine=machine)
    if not found:
        raise _nothing(saved, place, network, machine)
    console = stdout_console()
    if as_json:
        print_json(versioned("results", found))
    elif as_csv:
        typer.echo(_csv(found), nl=False)
    elif trend:
        for one in found:
            console.print(_course(one))
    else:
        console.print(_newest(found))
    if saved.damaged:
        raise typer.Exit(EXIT_USER)


def _nothing(saved: SavedRuns, place: Path, network: str | None, machine: str | None) -> UsageError:
    from deploykit.errors import UsageError

    count = len(saved.runs)
    if not count:
        damaged = len(saved.damaged)
        return UsageError(
            "There are no saved runs yet." if not damaged else "No saved run can be read.",
            where=str(place),
            found=f"{damaged} damaged record{'' if damaged == 1 else 's'}" if damaged else "no record of a run",
            expected="at least one that deploykit bench --save wrote",
            next_step="measure with: deploykit bench --save",
        )
    wanted = [f"{name} {value}" for name, value in (("network", network), ("machine", machine)) if value]
    return UsageError(
        "No saved run is of what is asked for.",
        where=str(place),
        found=f"{count} saved run{'' if count == 1 else 's'}, none of {' and '.join(wanted) or 'anything'}",
        expected="at least one",
        next_step="leave out --network and --machine to see what there is, or measure with: deploykit bench --save",
    )


def _newest(found: Sequence[Series]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title="Newest saved latency of one inference",
        title_justify="left",
        caption="\n".join(
            (
                "Figures of different runs are no comparison: deploykit compare A B is.",
                *_signs(one.last for one in found),
            )
        ),
        caption_justify="left",
    )
    for name in ("network", "form", "runtime", "machine"):
        table.add_column(name, overflow="fold")
    for name in ("threads", "median ms", "95 % interval", "FPS", "runs"):
        table.add_column(name, justify="right")
    table.add_column("measured", overflow="fold")
    for one in found:
        subject, last = one.subject, one.last
        cells = (subject.network, _form(one), subject.runtime, _place(one), str(subject.threads), *_figures(last))
        table.add_row(*(escape(cell) for cell in (*cells, _when(last))))
    return table


def _course(one: Series) -> Table:
    from rich.markup import escape
    from rich.table import Table

    subject = one.subject
    plural = "" if subject.threads == 1 else "s"
    title = f"{subject.network}, {_form(one)}, {subject.runtime}, {subject.threads} thread{plural}, {_place(one)}"
    signs = "\n".join(_signs(one.points))
    table = Table(title=escape(title), title_justify="left", caption=signs or None, caption_justify="left")
    table.add_column("measured", overflow="fold")
    for name in ("median ms", "95 % interval", "FPS", "runs", "change", "bytes"):
        table.add_column(name, justify="right")
    table.add_column("content hash")
    for point in one.points:
        change = "-" if point.change is None else f"{point.change:+.1%}"
        size = "-" if point.size_bytes is None else f"{point.size_bytes:,}"
        cells = (_when(point), *_figures(point), change, size, (point.content_hash or "-")[:12])
        table.add_row(*(escape(cell) for cell in cells))
    return table


def _when(point: Point) -> str:
    return " ".join(part for part in (point.started[:19], signs_of(point.cut_short, point.disturbed)) if part)


def _signs(points: Iterable[Point]) -> list[str]:
    """Return the footnotes of the signs that ``points`` bear."""
    marked = [signs_of(one.cut_short, one.disturbed) for one in points]
    return [text for sign, text in FOOTNOTES.items() if any(sign in one for one in marked)]


def _form(one: Series) -> str:
    parts = [str(part) for part in (one.subject.target, one.subject.precision) if part is not None]
    return " ".join(parts) or "-"


def _place(one: Series) -> str:
    subject = one.subject
    return subject.machine if subject.driver == "host" else f"{subject.machine} ({subject.driver})"


def _figures(point: Point) -> Iterator[str]:
    yield f"{1000 * point.median_s:.3f}"
    low, high = point.interval_s or (None, None)
    yield "-" if low is None or high is None else f"{1000 * low:.3f} to {1000 * high:.3f}"
    yield f"{1 / point.median_s:.1f}" if point.median_s else "-"
    yield str(point.runs)


def _csv(found: Sequence[Series]) -> str:
    import csv
    import io

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for one in found:
        subject = one.subject
        own = (subject.network, subject.target, subject.precision, subject.runtime, subject.threads)
        for point in one.points:
            low, high = point.interval_s or ("", "")
            place = (subject.accelerator, subject.driver, subject.machine, point.started)
            figures = (point.median_s, low, high, point.runs, point.size_bytes, point.content_hash, point.artifact)
            marks = (point.stopped, point.preempted, point.cut_short, "; ".join(point.disturbed))
            writer.writerow((*own, *place, *figures, point.complete, point.path.as_posix(), *marks))
    return text.getvalue()
