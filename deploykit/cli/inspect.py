"""``deploykit inspect``: what a network or an exported file is made of, and what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import (
    CheckpointKeyOption,
    CheckpointOption,
    JsonOption,
    SizeOption,
    VerboseOption,
    parse_size,
)
from deploykit.cli.quantization_options import CalibrationOption
from deploykit.vocab import Convention

if TYPE_CHECKING:
    from deploykit.inspection import FileInspection, NetworkInspection


def inspect(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE|CHECKPOINT|ARTIFACT",
            help="A recipe, a checkpoint of a bundled network, or an exported file.",
            show_default=False,
        ),
    ] = None,
    other: Annotated[
        str | None,
        typer.Argument(metavar="ARTIFACT", help="With --diff: the exported file to compare with.", show_default=False),
    ] = None,
    *,
    diff: Annotated[bool, typer.Option("--diff", help="Compare two exported files.")] = False,
    convention: Annotated[
        Convention, typer.Option("--convention", help="What counts as an operation.")
    ] = Convention.MACS,
    size: SizeOption = None,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    layers: Annotated[int, typer.Option("--layers", min=0, help="How many of the largest layers to show.")] = 10,
    ranges: Annotated[
        bool, typer.Option("--ranges", help="Show how unlike the ranges of each layer's channels are, on 8 images.")
    ] = False,
    calibration: CalibrationOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show what a network costs and can be simplified to, or what is in an exported file.

    macs: every multiply-accumulate. conv-macs: of convolutions alone, as in the tables of SINet and RCRNet.
    portraitnet-paper, mmengine: as PortraitNet's own table and the SAPPM report count. Without an argument the
    recipe in ./deploykit.toml is taken, else the one that --checkpoint belongs to, else sinet.
    """
    from deploykit.cli.console import print_json, progress, stderr_console, stdout_console
    from deploykit.cli.inspect_tables import of_file, of_network
    from deploykit.inspection import FileInspection
    from deploykit.inspection import inspect as look
    from deploykit.records import versioned

    del verbose
    if diff or other is not None:
        _compare(subject, other, convention, diff=diff, as_json=as_json)
        return
    with progress("inspect") as say:
        say("reading and counting")
        found = look(
            subject,
            convention=convention,
            size=parse_size(size),
            checkpoint=checkpoint,
            checkpoint_key=checkpoint_key,
            ranges=ranges,
            calibration=calibration,
        )
    if as_json:
        print_json(versioned("inspect", _body(found)))
    else:
        console = stdout_console()
        shown = of_file(found) if isinstance(found, FileInspection) else of_network(found, layers)
        for one in shown:
            console.print(one, markup=False)
    notes = found.contents.notes if isinstance(found, FileInspection) else found.notes
    for note in notes:
        stderr_console().print(f"note: {note}", markup=False)


def _compare(first: str | None, second: str | None, convention: Convention, *, diff: bool, as_json: bool) -> None:
    """Print two exported files side by side."""
    from deploykit.cli.console import print_json, progress, stdout_console
    from deploykit.cli.difference_table import tables
    from deploykit.errors import UsageError
    from deploykit.inspection.difference import difference
    from deploykit.records import to_json, versioned

    if first is None or second is None or not diff:
        raise UsageError(
            "Two files are compared with --diff.",
            where="inspect",
            found=", ".join(one for one in (first, second, "--diff" if diff else None) if one) or "nothing",
            expected="deploykit inspect --diff A B",
        )
    with progress("inspect") as say:
        say("reading both files")
        found = difference(first, second, convention)
    if as_json:
        print_json(versioned("file-difference", {**to_json(found), "same": found.same}))
        return
    for one in tables(found):
        stdout_console().print(one, markup=False, soft_wrap=isinstance(one, str))


def _body(found: NetworkInspection | FileInspection) -> dict[str, object]:
    from deploykit.graph.conventions import CONVENTIONS
    from deploykit.inspection import FileInspection
    from deploykit.records import to_json

    rules = CONVENTIONS[found.convention]
    body: dict[str, object] = to_json(found)
    body["subject"] = "file" if isinstance(found, FileInspection) else "network"
    body["convention_counts"] = rules.meaning
    body["convention_source"] = rules.source
    return body
