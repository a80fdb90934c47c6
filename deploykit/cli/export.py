"""``deploykit export``: a checkpoint becomes files that were run and compared before they were kept."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from deploykit.cli.options import (
    CheckpointKeyOption,
    CheckpointOption,
    ImagesOption,
    JsonOption,
    OutputDirOption,
    RecipeArgument,
    SizeOption,
    VerboseOption,
    parse_size,
)
from deploykit.errors import EXIT_FAILED
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from deploykit.errors import DeploykitError
    from deploykit.explain import Explanation
    from deploykit.lowering import ExportOptions
    from deploykit.network import LoadedNetwork
    from deploykit.preflight.records import Preflight
    from deploykit.recipe import Recipe
    from deploykit.records import Artifact, SkippedTarget

ALL = "all"


class Switch(StrEnum):
    """Whether something is done."""

    ON = "on"
    OFF = "off"


@dataclass(frozen=True)
class _Outcome:
    artifacts: tuple[Artifact, ...]
    skipped: tuple[SkippedTarget, ...]
    failed: tuple[tuple[Target, DeploykitError], ...]
    explained: tuple[Explanation, ...] = ()


def _names(given: list[str]) -> tuple[str, ...]:
    return tuple(name.strip() for item in given for name in item.split(","))


def _contradiction() -> DeploykitError:
    from deploykit.errors import UsageError

    return UsageError(
        "Nothing is optimized, so that no pass can be chosen.",
        where="--optimize off",
        found="--passes or --skip-pass beside it",
        expected="one of them",
    )


def export(
    recipe: RecipeArgument = None,
    *,
    target: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="TARGET",
            help="onnx, coreml, tflite, coreai, all; several with commas.",
            show_default="all",
        ),
    ] = None,
    precision: Annotated[
        Precision | None, typer.Option("--precision", help="Numbers of the file.", show_default="fp32")
    ] = None,
    checkpoint: CheckpointOption = None,
    checkpoint_key: CheckpointKeyOption = None,
    output_dir: OutputDirOption = Path("artifacts"),
    input_kind: Annotated[
        InputKind | None,
        typer.Option("--input-kind", help="image builds the preprocessing into the file.", show_default="tensor"),
    ] = None,
    output_kind: Annotated[
        OutputKind | None,
        typer.Option(
            "--output-kind",
            help="What the file returns: scores, the probability of the portrait, or 0 and 1.",
            show_default="logits",
        ),
    ] = None,
    size: SizeOption = None,
    layout: Annotated[
        Layout | None, typer.Option("--layout", help="Order of axes; nhwc for TFLite only.", show_default="nchw")
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX opset.", show_default="18")] = None,
    minimum_os: Annotated[
        str | None,
        typer.Option(
            "--minimum-os",
            help="Oldest iOS that runs the Core ML or Core AI file.",
            show_default="iOS15; Core AI iOS27",
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option("--variant", help="A named variant of the recipe.", show_default=False)
    ] = None,
    images: ImagesOption = None,
    optimize: Annotated[
        Switch, typer.Option("--optimize", help="off gives the plain conversion: only what the converter needs.")
    ] = Switch.ON,
    passes: Annotated[
        list[str] | None,
        typer.Option("--passes", metavar="PASS", help="Only these optional passes; several with commas."),
    ] = None,
    skip_pass: Annotated[
        list[str] | None, typer.Option("--skip-pass", metavar="PASS", help="All optional passes but these.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each pass changed.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what each target makes of the network; convert and write nothing.")
    ] = False,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Export a checkpoint and verify each file on its own runtime before keeping it.

    Without RECIPE the one named in ./deploykit.toml is taken, else the one that --checkpoint belongs to, else sinet.
    """
    from deploykit.api import load
    from deploykit.artifact import require_writable
    from deploykit.cli.console import progress, stderr_console
    from deploykit.images.preprocess import image_paths
    from deploykit.lowering import ExportOptions
    from deploykit.network import recipe_for
    from deploykit.recipe import default_recipe, project_recipe

    if not dry_run:
        require_writable(output_dir)
    photos = image_paths(images) if images else ()
    with progress("export") as say:
        say("loading the checkpoint")
        chosen = recipe_for(
            recipe or project_recipe(Path.cwd()), checkpoint, default_recipe(Path.cwd()), checkpoint_key
        )
        options = ExportOptions(
            precision=precision or Precision.FP32,
            input_kind=input_kind or InputKind.TENSOR,
            output_kind=output_kind or OutputKind.LOGITS,
            layout=layout,
            opset=opset,
            minimum_os=minimum_os,
            optimize=optimize is Switch.ON,
            passes=None if passes is None else _names(passes),
            skip_passes=_names(skip_pass or []),
        )
        if optimize is Switch.OFF and (passes or skip_pass):
            raise _contradiction()
        named: Sequence[Target] = tuple(Target)
        parsed = parse_size(size)
        if variant is not None:
            chosen, options, named = _apply_variant(chosen, variant, options, (precision, input_kind, output_kind))
        if parsed is not None:
            chosen = chosen.with_size(*parsed)
        asked, skipped = _targets(target, named)
        network = load(chosen, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
        if dry_run:
            from deploykit.preflight.look import preflight

            looked = preflight(network, asked, options, skipped=skipped, step=say)
        else:
            done = _write(network, asked, options, output_dir, photos=photos, verbose=verbose, explain=explain, say=say)
    for note in network.notes:
        stderr_console().print(f"note: {note}", markup=False)
    if dry_run:
        _show_dry_run(looked, as_json)
        return
    if verbose:
        for _, error in done.failed:
            traceback.print_exception(error)
    _show(replace(done, skipped=skipped), as_json)


def _apply_variant(
    recipe: Recipe,
    name: str,
    options: ExportOptions,
    given: tuple[Precision | None, InputKind | None, OutputKind | None],
) -> tuple[Recipe, ExportOptions, Sequence[Target]]:
    """Take from the variant what the command line leaves open."""
    chosen = recipe.variant(name)
    merged = replace(
        options,
        precision=given[0] or chosen.precision,
        input_kind=given[1] or chosen.input_kind,
        output_kind=given[2] or chosen.output_kind,
        layout=options.layout or chosen.layout,
        opset=options.opset or chosen.opset,
        minimum_os=options.minimum_os or chosen.minimum_os,
    )
    return (recipe.with_size(*chosen.size) if chosen.size else recipe), merged, chosen.targets


def _targets(asked: list[str] | None, named: Sequence[Target]) -> tuple[tuple[Target, ...], tuple[SkippedTarget, ...]]:
    from deploykit.errors import UsageError
    from deploykit.pipeline import installed_targets
    from deploykit.targets.table import require

    names = [name.strip() for item in asked or [ALL] for name in item.split(",")]
    unknown = [name for name in names if name not in (ALL, *Target)]
    if unknown:
        raise UsageError(
            "There is no such target.",
            where="--target",
            found=", ".join(name or "an empty name" for name in unknown),
            expected=", ".join((*Target, ALL)),
        )
    if ALL not in names:
        chosen = tuple(dict.fromkeys(Target(name) for name in names))
        for one in chosen:
            require(one)
        return chosen, ()
    ready, skipped = installed_targets()
    if not ready:
        raise UsageError(
            "No target is installed.",
            found="; ".join(f"{one.target}: {one.reason}" for one in skipped),
            expected="at least one target",
            next_step="pip install 'deploykit[all]'",
        )
    return tuple(t for t in ready if t in named), tuple(one for one in skipped if one.target in named)


def _write(
    network: LoadedNetwork,
    targets: Sequence[Target],
    options: ExportOptions,
    output_dir: Path,
    *,
    photos: Sequence[Path],
    verbose: bool,
    explain: bool,
    say: Callable[[str], None],
) -> _Outcome:
    """Write every target; one that fails does not keep the others from being made."""
    from deploykit.errors import DeploykitError
    from deploykit.explain import explain as explained_by
    from deploykit.lowering import on_files, options_for, plan_export
    from deploykit.pipeline import prepare_export
    from deploykit.verify.samples import draw_samples

    plans = {target: options_for(target, options, alone=len(targets) == 1) for target in targets}
    for target, chosen in plans.items():
        plan_export(network.recipe, target, chosen)
    say("capturing and simplifying the network")
    exporter = prepare_export(network, draw_samples(network.recipe, photos))
    artifacts: list[Artifact] = []
    failed: list[tuple[Target, DeploykitError]] = []
    explained: list[Explanation] = []
    for target, chosen in plans.items():
        try:
            artifact = exporter.write(target, chosen, output_dir, verbose=verbose, step=say)
            artifacts.append(artifact)
            if explain:
                say(f"{target}: explaining its passes")
                on_file = tuple(one for one in artifact.passes if one.name in on_files(target))
                explained.append(explained_by(exporter.training, network.recipe, artifact.plan, on_file))
        except DeploykitError as error:
            failed.append((target, error))
    return _Outcome(tuple(artifacts), (), tuple(failed), tuple(explained))


def _show_dry_run(found: Preflight, as_json: bool) -> None:
    """Print what a dry run found; exit code 1 where a target will refuse the network."""
    from deploykit.cli.console import print_json, stderr_console, stdout_console
    from deploykit.cli.preflight_tables import tables
    from deploykit.records import to_json, versioned

    if as_json:
        print_json(versioned("preflight", {**to_json(found), "passed": found.passed}))
    else:
        for one in tables(found):
            stdout_console().print(one, markup=False)
    for target in found.targets:
        for note in target.notes:
            stderr_console().print(f"note: {target.target}: {note}", markup=False)
    if not found.passed:
        raise typer.Exit(EXIT_FAILED)


def _show(outcome: _Outcome, as_json: bool) -> None:
    """Print the result; where a target failed, its error goes to stderr and decides the exit code."""
    from deploykit.cli.console import print_json, stderr_console, stdout_console
    from deploykit.records import to_json, versioned

    if as_json:
        body = {
            "artifacts": [{**to_json(one), "path": one.path.as_posix()} for one in outcome.artifacts],
            "skipped": to_json(outcome.skipped),
            "failed": [{"target": target.value, "error": error.render()} for target, error in outcome.failed],
            "explained": to_json(outcome.explained),
        }
        print_json(versioned("export", body))
    else:
        results = stdout_console()
        if outcome.artifacts:
            results.print(_table(outcome))
        for one in outcome.artifacts:
            results.print(one.path.as_posix(), markup=False, soft_wrap=True)
        if outcome.explained:
            from deploykit.cli.explain_table import tables

            for table in tables(outcome.explained):
                results.print(table)
    console = stderr_console()
    for one in outcome.artifacts:
        for note in one.lint:
            console.print(f"note: {one.plan.target}: {note}", markup=False)
    for target, error in outcome.failed:
        console.print(f"deploykit: error: {target}: {error}", markup=False)
    if outcome.failed:
        raise typer.Exit(min(error.exit_code for _, error in outcome.failed))


def _table(outcome: _Outcome) -> Table:
    from rich.table import Table

    recipes = {one.recipe for one in outcome.artifacts}
    table = Table(
        title=f"Exported files of {', '.join(recipes)}" if recipes else "No file was exported", title_justify="left"
    )
    for name in ("target", "precision"):
        table.add_column(name)
    for name in ("size", "max abs error", "SNR dB", "masks equal", "wrong pixels"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    table.add_column("checked on", overflow="fold")
    for one in outcome.artifacts:
        for comparison in one.comparisons:
            agreement = "-" if comparison.mask_agreement is None else f"{comparison.mask_agreement:.3%}"
            # Of masks the classes are compared: one changed pixel would be an error of 1.
            of_values = one.plan.output_kind is not OutputKind.MASK
            table.add_row(
                one.plan.target.value,
                one.plan.precision.value,
                f"{one.size_bytes / 1000:.0f} kB",
                f"{comparison.max_abs_error:.2e}" if of_values else "-",
                f"{comparison.snr_db:.1f}" if of_values else "-",
                agreement,
                "-" if comparison.wrong_pixels is None else str(comparison.wrong_pixels),
                "pass" if comparison.passed else "FAIL",
                one.runtime,
            )
    for skip in outcome.skipped:
        table.add_row(skip.target.value, *["-"] * 6, "skipped", skip.reason)
    for target, error in outcome.failed:
        table.add_row(target.value, *["-"] * 6, "FAIL", error.message)
    return table
