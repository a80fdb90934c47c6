"""``deploykit ci init``: a workflow that runs the gate on every change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deploykit.ci_files import Provider

ci = typer.Typer(help="Run the gate in CI.", no_args_is_help=True, rich_markup_mode=None)


@ci.callback()
def _group() -> None:
    """Run the gate in CI."""


@ci.command("init")
def ci_init(
    provider: Annotated[Provider, typer.Argument(help="Whose CI it is.")],
    *,
    force: Annotated[bool, typer.Option("--force", help="Write over a workflow that is there.")] = False,
) -> None:
    """Write a workflow that exports, runs the gate, and comments its table on the change.

    It keeps exported files and those of the baseline by hash. A deploykit.toml with budgets and a committed
    gate-baseline.json are what it works on.
    """
    from deploykit.ci_files import FILES, write_workflow

    write_workflow(provider, Path.cwd(), overwrite=force)
    typer.echo(FILES[provider][0].as_posix())
