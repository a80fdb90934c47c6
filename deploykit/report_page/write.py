"""Write the report on a folder of artifacts: read, match, judge, run for pictures, render."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from deploykit.errors import UsageError
from deploykit.recipe import Recipe, load_recipe
from deploykit.report_page.content import content_of
from deploykit.report_page.html import page
from deploykit.report_page.markdown import release_note
from deploykit.report_page.matching import match
from deploykit.report_page.pictures import galleries
from deploykit.report_page.reading import collect
from deploykit.report_page.records import ReportSummary
from deploykit.report_page.verdict import judge

Say = Callable[[str], None]


def write_report(
    folder: Path,
    output: Path,
    *,
    markdown: Path | None = None,
    images: Path | None = None,
    pictures: bool = True,
    recipes: Sequence[str | Path | Recipe] = (),
    report: Say | None = None,
) -> ReportSummary:
    """Write the page on every artifact and record below ``folder`` to ``output``; return what it says.

    ``markdown`` is a release note beside it. ``images``, a photo or a folder of them, are what masks are shown on
    instead of held-out portraits; without ``pictures`` no file is run. ``recipes`` are those of networks that do not
    come with deploykit, whose checkpoints make the masks that files are held against. A folder in which things fail is
    still a report: its verdict says so.

    Raises:
        ArtifactError: no folder, or no manifest in it.
        ImageError: images that cannot be read.
        RecipeError: a recipe that cannot be read.
        UsageError: an output that cannot be written, or one for both page and release note.
    """
    say = report or (lambda message: None)
    for path, option in ((output, "--output"), (markdown, "--markdown")):
        if path is not None:
            _require_writable(path, option)
    if markdown is not None and markdown.absolute().resolve() == output.absolute().resolve():
        raise UsageError(
            "Page and release note cannot be one file.",
            where="--output and --markdown",
            found=str(output),
            expected="two different files",
            next_step="name another with --markdown",
        )
    known = tuple(one if isinstance(one, Recipe) else load_recipe(one) for one in recipes)
    say("reading manifests and records")
    matched = match(collect(folder))
    shown = galleries(matched, images=images, recipes=known, say=say) if pictures else ()
    verdict = judge(matched, folder)
    content = content_of(matched, verdict, shown, folder)
    say("writing")
    html = page(content).encode("utf-8", "replace")
    _write(output, html, "--output")
    if markdown is not None:
        _write(markdown, release_note(content).encode("utf-8", "replace"), "--markdown")
    return ReportSummary(
        standing=verdict.standing,
        sentence=verdict.sentence,
        reasons=verdict.reasons,
        artifacts=len(matched.dossiers),
        records=len(matched.records),
        left_out=matched.left_out,
        pictures=sum(one.count for one in shown),
        path=output,
        size_bytes=len(html),
        markdown=markdown,
        notes=(*verdict.notes, *(note for one in shown for note in one.notes)),
    )


def _require_writable(path: Path, option: str) -> None:
    parent = path.absolute().parent
    if path.is_dir() or not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(
            "The report cannot be written.",
            where=str(path),
            found="a folder"
            if path.is_dir()
            else f"{parent} is " + ("not writable" if parent.is_dir() else "no folder"),
            expected="a file in a folder that can be written",
            next_step=f"name another with {option}",
        )


def _write(path: Path, content: bytes, option: str) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UsageError(
            "The report cannot be written.",
            where=str(path),
            found=error.strerror or str(error),
            expected="a file in a folder that can be written",
            next_step=f"name another with {option}",
        ) from error
