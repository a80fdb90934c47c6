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
    *,
    convention: Annotated[
        Convention, typer.Option("--convention", help="What counts as an operation.")
    ] = Convention.MACS,
    size: SizeOption = None,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    layers: Annotated[int, typer.Option("--layers", min=0, help="How many of the largest layers to show.")] = 10,
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
    with progress("inspect") as say:
        say("reading and counting")
        found = look(
            subject,
            convention=convention,
            size=parse_size(size),
            checkpoint=checkpoint,
            checkpoint_key=checkpoint_key,
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
