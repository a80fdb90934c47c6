"""``deploykit papers``: what the five papers state beside what was counted and measured here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import JsonOption
from deploykit.cli.saved_runs import FOOTNOTES, say_left_out, signs_of

if TYPE_CHECKING:
    from rich.table import Table

    from deploykit.papers import figures
    from deploykit.papers.compare import Comparison, Line

_UNITS = {"params_millions": "M", "flops_giga": "G", "miou_percent": "%", "fps": "FPS", "latency_ms": "ms"}
_HEADINGS = {
    "params_millions": "params M",
    "flops_giga": "FLOPs G",
    "fps": "FPS",
    "latency_ms": "ms",
    "miou_percent": "mIoU %",
    "miou_quoted_percent": "quoted mIoU %",
    "edge_iou_percent": "edge IoU %",
    "edge_iou_increase_points": "increase",
    "aacc_percent": "aAcc %",
    "macc_percent": "mAcc %",
    "boundary_f1": "boundary F1",
    "sigma_pixels": "sigma",
    "dilation": "dilation",
    "convolution_kernel": "convolution",
    "pooling_kernel": "pooling",
    "trained_on": "trained on",
}
_LEGEND = (
    "Parameters and cost were counted here, in the convention named; merged: BatchNorm folded and branches merged. "
    "The mIoU measured is that of the bundled checkpoint on drawn portraits kept from its training: no figure on a "
    "paper's dataset compares with it, and times compare only on one device. deploykit inspect RECIPE --convention "
    "NAME says what a convention counts."
)
_TIMES = ("fps", "latency_ms")
_SPEED_LEGEND = (
    "Each figure belongs to the device beside it; figures of two devices are no comparison of two networks. FPS is one "
    "over the time of one image."
)


def papers(
    *,
    network: Annotated[
        str | None,
        typer.Option(
            "--network", help="Only this network or recipe, with all that any paper states.", show_default=False
        ),
    ] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Print every row of the papers' tables instead, rivals included.")
    ] = False,
    with_results: Annotated[
        bool, typer.Option("--with-results", help="Add the speeds: the papers' devices beside the runs saved here.")
    ] = False,
    results_dir: Annotated[
        Path | None,
        typer.Option("--results-dir", help="Saved runs of bench --save.", show_default="benchmarks/results"),
    ] = None,
    count_now: Annotated[
        bool, typer.Option("--count-now", help="Count the networks now, in minutes, not from the recorded counts.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare what the papers state about their networks with what was counted and measured here."""
    from deploykit.cli.console import print_json, progress, stdout_console
    from deploykit.errors import EXIT_USER
    from deploykit.papers.compare import choose, compare
    from deploykit.papers.figures import load_papers
    from deploykit.records import versioned
    from deploykit.results.store import SavedRuns, read_runs

    known = load_papers()
    console = stdout_console()
    if rows:
        chosen = [paper for paper, _ in choose(known, network)]
        if as_json:
            print_json(versioned("papers-rows", [paper.model_dump(mode="json", exclude_none=True) for paper in chosen]))
            return
        for paper in chosen:
            console.print(_heading(paper), markup=False)
            for table in paper.tables:
                device = "" if table.device is None else f" [{table.device}]"
                console.print(f"{table.place}: {table.caption}{device}", markup=False)
                console.print(_printed(table))
                console.print("\n".join(_footnotes(table)), markup=False)
        return
    with progress("papers") as say:
        saved = read_runs(_results_folder(results_dir)) if with_results else SavedRuns(())
        found = compare(known, network, afresh=count_now, runs=saved.runs, report=say)
    say_left_out(saved)
    if as_json:
        print_json(versioned("papers", found))
    else:
        _print(found, with_results)
    if saved.damaged:
        raise typer.Exit(EXIT_USER)


def _print(found: Sequence[Comparison], with_results: bool) -> None:
    from deploykit.cli.console import stdout_console

    console = stdout_console()
    for comparison in found:
        console.print(_heading(comparison), markup=False)
        console.print(_compared(comparison))
        for remark in comparison.remarks:
            console.print(f"- {remark}", markup=False)
        console.print()
    console.print(_LEGEND, markup=False)
    if with_results:
        console.print()
        console.print(_speeds(found))
        console.print("\n".join((_SPEED_LEGEND, *_footnotes_of_runs(found))), markup=False)


def _results_folder(given: Path | None) -> Path:
    """Return the folder of saved runs: the one given, that of the project here, else the bundled one."""
    from deploykit.errors import UsageError
    from deploykit.resources import bundled
    from deploykit.results.store import FOLDER

    if given is not None and not given.is_dir():
        raise UsageError(
            "There are no saved runs.",
            where=str(given),
            found="a file" if given.exists() else "nothing",
            expected="a folder that deploykit bench --save wrote",
            next_step="measure with: deploykit bench --save",
        )
    return given or (FOLDER if FOLDER.is_dir() else bundled("benchmarks") / "results")


def _speeds(comparisons: Sequence[Comparison]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Speed, each on its own device", title_justify="left")
    table.add_column("network", overflow="fold")
    for name in ("ms", "95 % interval", "FPS"):
        table.add_column(name, justify="right")
    table.add_column("device", overflow="fold")
    table.add_column("source", overflow="fold")
    for comparison in comparisons:
        lines = [line for line in comparison.lines if line.figure in _TIMES]
        for recipe in dict.fromkeys(line.recipe for line in comparison.lines):
            own = [line for line in lines if line.recipe == recipe]
            table.add_section()
            for line in own:
                table.add_row(*(escape(cell) for cell in (recipe, *_speed(line), *_source(line, comparison))))
            if not any(line.measured is not None for line in own):
                table.add_row(escape(recipe), "-", "-", "-", "no saved run", "deploykit bench --save")
    return table


def _speed(line: Line) -> tuple[str, str, str]:
    value = line.measured if line.stated is None else line.stated
    assert value is not None
    interval = "-" if line.interval is None else f"{line.interval[0]:.2f} to {line.interval[1]:.2f}"
    if line.figure == "fps":
        return f"({1000 / value:.4g})", interval, f"{value:.4g}"
    return f"{value:.4g}", interval, f"({1000 / value:.4g})"


def _source(line: Line, comparison: Comparison) -> tuple[str, str]:
    if line.stated is not None:
        size = "" if line.input_size is None else f" at {line.input_size[0]}x{line.input_size[1]}"
        return f"{line.device or 'not stated'}{size}", f"stated: {comparison.name}, {_places(line, comparison)}"
    when = f"{(line.measured_at or 'undated')[:10]} {signs_of(line.cut_short, line.disturbed)}".strip()
    return line.device or "-", f"measured here, {when}"


def _footnotes_of_runs(found: Sequence[Comparison]) -> list[str]:
    marked = [signs_of(line.cut_short, line.disturbed) for one in found for line in one.lines]
    return [text for sign, text in FOOTNOTES.items() if any(sign in one for one in marked)]


def _heading(paper: Comparison | figures.Paper) -> str:
    title = paper.title or paper.name
    head = title if title.startswith(paper.name) else f"{paper.name}: {title}"
    published = ", ".join(str(part) for part in (paper.venue, paper.year) if part is not None)
    return f"{head} ({published})" if published else head


def _compared(comparison: Comparison) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("figure", overflow="fold")
    for name in ("stated", "measured", "deviation"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("stated in", overflow="fold")
    for recipe in dict.fromkeys(line.recipe for line in comparison.lines):
        own = [line for line in comparison.lines if line.recipe == recipe]
        table.add_section()
        table.add_row(f"[bold]{escape(recipe)}[/bold]")
        for line, label in zip(own, _labels(own), strict=True):
            deviation = "-" if line.deviation_percent is None else f"{line.deviation_percent:+.1f} %"
            cells = (
                label,
                _value(line.stated, line),
                _value(line.measured, line),
                deviation,
                _places(line, comparison),
            )
            table.add_row(*(escape(cell) for cell in cells))
    return table


def _places(line: Line, comparison: Comparison) -> str:
    """Return where the figure is stated, the tables of each paper together; the paper's own without its name."""
    parts = []
    for paper in dict.fromkeys(place.paper for place in line.places):
        places = [place.place for place in line.places if place.paper == paper]
        numbers = [place.removeprefix("Table ") for place in places if place.startswith("Table ")]
        tables = [f"Table{'s' * (len(numbers) > 1)} {', '.join(numbers)}"] if numbers else []
        own = paper == comparison.name
        parts.append(("" if own else f"{paper}: ") + ", ".join([*tables, *(p for p in places if p[:6] != "Table ")]))
    return "; ".join(parts) or "-"


def _labels(lines: Sequence[Line]) -> list[str]:
    """Return what each line is about; where two methods would read the same, the method as well."""
    plain = [_label(line) for line in lines]
    methods = [line.methods[:1] for line in lines]
    return [
        f"{label} ({method[0]})" if len({m for p, m in zip(plain, methods, strict=True) if p == label}) > 1 else label
        for label, method in zip(plain, methods, strict=True)
    ]


def _label(line: Line) -> str:
    merged = ", merged" if line.merged else ""
    if line.figure == "params_millions":
        return f"parameters{merged}"
    if line.figure == "flops_giga" and line.input_size is not None:
        return f"cost, {line.convention}{merged}, {line.input_size[0]}x{line.input_size[1]}"
    if line.figure == "miou_percent":
        return f"mIoU{f' ({line.metric})' if line.metric else ''}, {line.dataset}"
    return f"{'speed' if line.figure == 'fps' else 'latency'}, {line.device}"


def _value(value: float | None, line: Line) -> str:
    return "-" if value is None else f"{value:.4g} {_UNITS[line.figure]}"


def _printed(table: figures.Table) -> Table:
    from rich.markup import escape
    from rich.table import Table

    made = Table()
    columns = list(_columns(table))
    sized = any(table.size_of(row) for row in table.rows)
    made.add_column("method", overflow="fold")
    if sized:
        made.add_column("input", no_wrap=True)
    for key, part in columns:
        heading = _HEADINGS[key] if part is None else f"{_HEADINGS[key]}\n{part}"
        made.add_column(escape(heading), justify="right", overflow="fold")
    notes = 0
    for row in table.rows:
        notes += row.note is not None
        method = row.method if row.setting is None else f"{row.method}, {row.setting}"
        cells = [method if row.note is None else f"{method} ({notes})"]
        if sized:
            shape = (*((row.input_channels,) if row.input_channels else ()), *(table.size_of(row) or ("-",)))
            cells.append("x".join(str(size) for size in shape))
        cells += [_cell(row, key, part) for key, part in columns]
        made.add_row(*(escape(cell) for cell in cells))
    return made


def _columns(table: figures.Table) -> Iterator[tuple[str, str | None]]:
    """Yield key and, where its cells hold several values, the name of the value of each column."""
    for key in table.columns:
        values = [getattr(row, key) for row in table.rows]
        parts = dict.fromkeys(part for value in values if isinstance(value, dict) for part in value)
        yield from ((key, part) for part in parts or (None,))


def _cell(row: figures.Row, key: str, part: str | None) -> str:
    value = getattr(row, key)
    if isinstance(value, dict):
        value = value.get(part)
    return "-" if value is None else str(value)


def _footnotes(table: figures.Table) -> Iterator[str]:
    notes = [row.note for row in table.rows if row.note is not None]
    yield from (f"({number}) {note}" for number, note in enumerate(notes, 1))
    for convention in dict.fromkeys(row.convention for row in table.rows if row.convention is not None):
        methods = dict.fromkeys(row.method for row in table.rows if row.convention is convention)
        yield f"FLOPs are counted as {convention} for {', '.join(methods)}."
    yield ""
