"""``deploykit report``: a folder of artifacts and records as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploykit.cli.options import JsonOption


def report(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder that deploykit export or deploykit pipeline wrote.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where the page goes.")] = Path(
        "report.html"
    ),
    markdown: Annotated[
        Path | None,
        typer.Option("--markdown", metavar="FILE", help="Write a release note there as well.", show_default=False),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="A photo, or a folder of photos, to show masks on instead of portraits.",
            show_default=False,
        ),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures/--no-pictures", help="Run checkpoint and files, and show their masks.")
    ] = True,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            "--recipe",
            help="The .toml file of a network of your own; may be repeated. That of ./deploykit.toml is known.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write one page on everything in a folder: the verdict first, then what it stands on and what is missing.

    Records, as the commands print them with --json, are matched to files by content hash. What is stale, damaged or
    foreign is listed and takes no part. The page needs no network. Exits with 1 where the verdict is a failure; the
    page is written all the same.
    """
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.errors import EXIT_FAILED
    from deploykit.recipe import project_recipe
    from deploykit.records import versioned
    from deploykit.report_page import Standing, write_report

    own = project_recipe(Path())
    with progress("report") as say:
        found = write_report(
            folder,
            output,
            markdown=markdown,
            images=images,
            pictures=pictures,
            recipes=(*(recipe or ()), *([own] if own else [])),
            report=say,
        )
    console = stderr_console()
    for one in found.left_out:
        console.print(f"{one.why}: {one.path}: {one.reason}", markup=False)
    for note in found.notes:
        console.print(f"note: {note}", markup=False)
    if as_json:
        print_json(versioned("report", found))
    else:
        results = stdout_console()
        results.print(found.sentence, markup=False, soft_wrap=True)
        results.print(found.path.as_posix(), markup=False, soft_wrap=True)
        if found.markdown is not None:
            results.print(found.markdown.as_posix(), markup=False, soft_wrap=True)
    if found.standing is Standing.FAIL:
        raise typer.Exit(EXIT_FAILED)
