"""``deploykit pipeline``: the whole line in one command, and only what changed since the last time."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from deploykit.cli.options import (
    CheckpointKeyOption,
    CheckpointOption,
    JsonOption,
    OutputDirOption,
    VerboseOption,
    require_known,
    split_names,
)

T = TypeVar("T", bound=StrEnum)

# Each process holds PyTorch and converters: about 1.5 GB.
MOST_JOBS = 4


def pipeline(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECIPE", help="Bundled recipes, or paths of .toml files.", show_default=False),
    ] = None,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="onnx, coreml, tflite, coreai; several with commas.",
            show_default="those of the recipe, else all that are installed",
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(
            "--precision",
            metavar="PRECISION",
            help="Numbers of the files; several with commas.",
            show_default="those of the recipe, else fp32,fp16,int8",
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    output_dir: OutputDirOption = Path("artifacts"),
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Processes at a time.", show_default="one a core, 4 at most"),
    ] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(
            "--skip",
            metavar="STAGE",
            help="Leave out verify, evaluate, bench, gate or report; several with commas.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, max=128, help="Synthetic portraits to evaluate on.", show_default="32"),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option("--clips", min=0, max=64, help="Generated video clips for the flicker.", show_default="2"),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", help="Measure the latency of each file for no longer.")
    ] = 10.0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Do every stage again, whatever is up to date.")] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Verify, export, evaluate, measure and judge whole recipes, all targets and precisions, in one go.

    Without RECIPE the one named in ./deploykit.toml is taken, else sinet. Each stage is done again only if something
    that decides it changed: recipe, checkpoint, options, images, deploykit or a library. A stage that fails stops what
    needs it and nothing else; latency is measured while nothing else runs. After Ctrl-C or a crash the same command
    goes on where it was.

    Artifacts lie where export puts them, records in DIR/RECIPE/records, what became of the stages in DIR/pipeline.json.
    Exits with 0 where everything passed, with 1 where a verification or the gate failed.
    """
    from deploykit.cli.console import print_json
    from deploykit.cli.pipeline_progress import Progress
    from deploykit.cli.pipeline_table import show
    from deploykit.latency.agent import cores
    from deploykit.stages.plan import PipelineOptions
    from deploykit.stages.records import OPTIONAL, StageKind
    from deploykit.stages.run import run_pipeline
    from deploykit.stages.run_record import record_of_run
    from deploykit.vocab import Precision, Target

    options = PipelineOptions(
        output_dir=output_dir,
        targets=tuple(_members(Target, "--target", target, tuple(Target))) or None,
        precisions=tuple(_members(Precision, "--precision", precision, tuple(Precision))) or None,
        checkpoint=checkpoint,
        checkpoint_key=checkpoint_key,
        samples=samples,
        clips=clips,
        max_seconds=max_seconds,
        skip=frozenset(_members(StageKind, "--skip", skip, OPTIONAL)),
        jobs=jobs or min(cores.count(), MOST_JOBS),
        fresh=fresh,
        verbose=verbose,
    )
    with Progress() as progress:
        run = run_pipeline(recipes or (), options, progress)
    if as_json:
        print_json(record_of_run(run))
    show(run, tables=not as_json)
    if run.exit_code:
        raise typer.Exit(run.exit_code)


def _members(kind: type[T], option: str, given: list[str] | None, allowed: tuple[T, ...]) -> list[T]:
    """Return the members that an option names, each once."""
    names = split_names(given or ())
    require_known(names, allowed, option, "There is no such choice.")
    return [kind(name) for name in dict.fromkeys(names)]
