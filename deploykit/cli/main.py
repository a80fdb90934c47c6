"""The command line: one function per command, errors rendered in one place, nothing heavy imported at start."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from typing import Annotated

import typer

from deploykit.cli.bench import bench
from deploykit.cli.ci import ci
from deploykit.cli.compare import compare
from deploykit.cli.demo import demo
from deploykit.cli.devices import devices
from deploykit.cli.doctor import doctor
from deploykit.cli.evaluate import evaluate
from deploykit.cli.export import export
from deploykit.cli.gate import gate
from deploykit.cli.inspect import inspect
from deploykit.cli.papers import papers
from deploykit.cli.pipeline import pipeline
from deploykit.cli.preview import preview
from deploykit.cli.quantization_report import quantization_report
from deploykit.cli.recipes import init, recipes
from deploykit.cli.report import report
from deploykit.cli.results import results
from deploykit.cli.run import run
from deploykit.cli.sensitivity import sensitivity
from deploykit.cli.verify import verify
from deploykit.cli.verify_reparam import verify_reparam
from deploykit.cli.web import web
from deploykit.errors import EXIT_BUG, EXIT_USER, DeploykitError
from deploykit.version import __version__

app = typer.Typer(
    name="deploykit",
    help="A trained PyTorch vision checkpoint becomes verified ONNX, Core ML, TFLite and Core AI files.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

app.command()(export)
app.command("verify-reparam")(verify_reparam)
app.command()(verify)
app.command()(inspect)
app.command()(run)
app.command()(preview)
app.command()(evaluate)
app.command()(bench)
app.command()(compare)
app.command()(devices)
app.command()(web)
app.command()(gate)
app.command()(pipeline)
app.add_typer(ci, name="ci")
app.command()(sensitivity)
app.command("quantization-report")(quantization_report)
app.command()(results)
app.command()(report)
app.command()(papers)
app.command()(recipes)
app.command()(init)
app.command()(doctor)
app.command()(demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"deploykit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del version


def _prepare_streams() -> None:
    """Make a closed stream harmless, and signals end the process in the way that leaves nothing half-written."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(number, "w"))
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if hasattr(signal, "SIGPIPE"):
        # A reader that goes away, such as head, ends us silently, as it does any other command.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def main() -> None:
    """Run the command line as the process's own program."""
    _prepare_streams()
    run_command()


def run_command() -> None:
    """Run the command line and exit: 0 pass, 1 a verification failed, 2 the user can fix it, 70 a bug."""
    try:
        app()
    except DeploykitError as error:
        sys.stderr.write(f"deploykit: error: {error}\n")
        if "--verbose" in sys.argv:
            traceback.print_exception(error)
        sys.exit(error.exit_code)
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            sys.stderr.write(f"deploykit: error: No space is left where the output goes.\n  found: {error}\n")
            sys.exit(EXIT_USER)
        traceback.print_exc()
        sys.stderr.write("deploykit: this is a bug; please report it with the lines above\n")
        sys.exit(EXIT_BUG)
