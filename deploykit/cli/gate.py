"""``deploykit gate``: exported files against budgets and a baseline, for CI."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import JsonOption
from deploykit.gate_records import Inconclusive

if TYPE_CHECKING:
    from deploykit.gate_measuring.run import GateOptions
    from deploykit.gate_records import GateReport

_GITHUB_SUMMARY = "GITHUB_STEP_SUMMARY"


def gate(
    artifacts: Annotated[
        list[Path] | None,
        typer.Argument(metavar="ARTIFACT", help="Exported files, or folders of them.", show_default=False),
    ] = None,
    *,
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", help="Where artifacts are looked for without ARTIFACT.")
    ] = Path("artifacts"),
    recipe: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="A recipe whose budgets count; may be repeated.", show_default=False),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            "--baseline", metavar="FILE", help="What growth is held against.", show_default="gate-baseline.json"
        ),
    ] = None,
    cache: Annotated[
        Path, typer.Option("--cache", metavar="DIR", help="Where files of the baseline are kept, by their hash.")
    ] = Path(".deploykit") / "baseline",
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Show what would change in the baseline, and write it if agreed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write the baseline without asking.")] = False,
    strict: Annotated[
        bool | None,
        typer.Option("--strict/--no-strict", help="What is skipped fails.", show_default="strict where CI is set"),
    ] = None,
    inconclusive: Annotated[
        Inconclusive, typer.Option("--inconclusive", help="What becomes of latency that noise leaves open.")
    ] = Inconclusive.RETRY,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="RULE", help="Apply this rule alone; may be repeated.", show_default=False),
    ] = None,
    samples: Annotated[int, typer.Option("--samples", help="Synthetic portraits that masks are judged on.")] = 32,
    clips: Annotated[int, typer.Option("--clips", help="Generated clips that flicker is judged on.")] = 4,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Compare two files for so long unless it is clear before.")
    ] = 30,
    results_dir: Annotated[
        Path | None,
        typer.Option(
            "--results-dir",
            help="Saved runs, from which limits for other machines take their latency.",
            show_default="benchmarks/results",
        ),
    ] = None,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit XML there.", show_default=False)
    ] = None,
    summary: Annotated[
        Path | None, typer.Option("--summary", metavar="FILE", help="Write Markdown there.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Hold exported files to the budgets of their recipes and of deploykit.toml.

    Sizes, operations and masks are judged against limits and a committed baseline, latency beside the baseline's own
    file in the same run. Each file is also checked against its manifest and its checkpoint. A latency failure is
    measured again before it is reported. A limit on latency for another machine, such as a phone's browser, is held
    against the newest run of the same content that bench or web saved there. Exits with 0 where nothing fails, with 1
    where something does.
    """
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.cli.gate_table import gate_table, reasons
    from deploykit.errors import EXIT_FAILED, UsageError
    from deploykit.gate_measuring.run import GateOptions, run_gate
    from deploykit.records import versioned
    from deploykit.report.gate_schema import KIND
    from deploykit.report.gate_words import verdict_line

    options = GateOptions(
        paths=tuple(artifacts or ()),
        output_dir=output_dir,
        recipes=tuple(recipe or ()),
        baseline=baseline,
        cache=cache,
        results=results_dir,
        only=frozenset(only or ()),
        samples=samples,
        clips=clips,
        max_seconds=max_seconds,
        strict=_in_ci() if strict is None else strict,
        inconclusive=inconclusive,
    )
    if update_baseline:
        _update(options, yes=yes, as_json=as_json)
        return
    if yes:
        raise UsageError("--yes answers a question that is not asked.", expected="--update-baseline as well")
    with progress("gate") as say:
        found = run_gate(options, say)
    _write(found, junit, summary)
    console = stderr_console()
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from deploykit.report.gate_summary import workflow_commands

        sys.stderr.writelines(f"{line}\n" for line in workflow_commands(found))
    if as_json:
        print_json(versioned(KIND, found))
    else:
        stdout_console().print(gate_table(found))
        for line in (*reasons(found), verdict_line(found)):
            stdout_console().print(line, markup=False, soft_wrap=True)
    if not found.passed:
        raise typer.Exit(EXIT_FAILED)


def _in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def _write(found: GateReport, junit: Path | None, summary: Path | None) -> None:
    from deploykit.report.gate_junit import junit as as_junit
    from deploykit.report.gate_summary import summary as as_markdown

    if junit is not None:
        _write_file(junit, as_junit(found), "--junit")
    if summary is not None:
        text = as_markdown(found).encode("utf-8", "replace")
        # GitHub's own file may hold what an earlier command of the step wrote.
        if os.environ.get(_GITHUB_SUMMARY) == str(summary) and summary.is_file():
            text = summary.read_bytes() + b"\n" + text
        _write_file(summary, text, "--summary")


def _write_file(path: Path, content: bytes, option: str) -> None:
    from deploykit.atomic import replacing
    from deploykit.errors import UsageError

    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise UsageError(
            "The report cannot be written.",
            where=str(path),
            found=error.strerror or str(error),
            expected="a file in a folder that can be written",
            next_step=f"name another with {option}",
        ) from error


def _update(options: GateOptions, *, yes: bool, as_json: bool) -> None:
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.cli.gate_table import changes_table
    from deploykit.errors import EXIT_FAILED, UsageError
    from deploykit.gate.baseline import changes, write_baseline
    from deploykit.gate_measuring.run import new_baseline
    from deploykit.gate_measuring.subjects import from_here
    from deploykit.records import versioned

    with progress("gate") as say:
        before, after = new_baseline(options, say)
    different = changes(before, after)
    path = options.baseline_path
    shown = from_here(path)
    if as_json:
        print_json(versioned("gate-baseline-changes", {"baseline": shown, "changes": different}))
    elif different:
        stdout_console().print(changes_table(different))
    console = stderr_console()
    if not different and path.is_file():
        console.print(f"{shown} is up to date", markup=False)
        return
    if not yes and not sys.stdin.isatty():
        raise UsageError(
            "The baseline was not written: there is nobody to ask.",
            where=shown,
            found="no terminal",
            next_step="look at the difference, and give --yes",
        )
    if not yes and not typer.confirm(f"Write {shown}?", err=True):
        console.print("The baseline stays as it is.", markup=False)
        raise typer.Exit(EXIT_FAILED)
    write_baseline(after, path)
    console.print(f"{shown} written: commit it", markup=False)
