"""``deploykit recipes`` and ``deploykit init``: what there is, and a recipe for a checkpoint at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploykit.cli.options import CheckpointKeyOption, JsonOption, VerboseOption


def recipes(*, as_json: JsonOption = False) -> None:
    """List the bundled recipes."""
    from rich.table import Table

    from deploykit.cli.console import print_json, stdout_console
    from deploykit.recipe import bundled_recipes, load_recipe
    from deploykit.records import versioned

    found = [load_recipe(name) for name in bundled_recipes()]
    if as_json:
        print_json(versioned("recipes", [{"sha256": r.sha256, **r.file.model_dump(mode="json")} for r in found]))
        return
    table = Table(title="Bundled recipes", title_justify="left")
    for column in ("recipe", "network", "input", "outputs", "variants", "weights", "description"):
        table.add_column(column, overflow="fold")
    for one in found:
        shapes = ", ".join("x".join(str(size) for size in item.shape) for item in one.file.inputs)
        table.add_row(
            one.name,
            one.file.network.factory,
            shapes,
            ", ".join(output.name for output in one.deployed()),
            ", ".join(variant.name for variant in one.file.variants) or "-",
            "bundled" if one.checkpoint_path() is not None else "none",
            one.file.description,
        )
    stdout_console().print(table)


def init(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Trained weights: .pth, .pt, .ckpt or .safetensors.")
    ],
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="The recipe to write.")] = Path("recipe.toml"),
    checkpoint_key: CheckpointKeyOption = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a recipe that is there.")] = False,
    verbose: VerboseOption = False,
) -> None:
    """Recognise a checkpoint from its keys and write a recipe for it, or say what was not recognised."""
    from deploykit.cli.console import stderr_console
    from deploykit.starter import write_starter

    del verbose
    for note in write_starter(checkpoint, output, key=checkpoint_key, overwrite=force):
        stderr_console().print(f"note: {note}", markup=False)
    typer.echo(str(output))
