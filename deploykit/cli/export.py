"""``deploykit export``: a checkpoint becomes files that were run and compared before they were kept."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    require_known,
    split_names,
)
from deploykit.cli.quantization_options import (
    CalibrationImagesOption,
    CalibrationOption,
    CorrectBiasesOption,
    EqualizeOption,
    EstimatorOption,
    HeldOutOption,
    IntegerIoOption,
    MaxDropOption,
    Switch,
    calibrated,
    with_quantization,
)
from deploykit.vocab import InputKind, Layout, OutputKind, Precision, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploykit.cli.export_table import Outcome
    from deploykit.errors import DeploykitError
    from deploykit.evaluation.records import EvaluationRun
    from deploykit.explain import Explanation
    from deploykit.lowering import ExportOptions
    from deploykit.network import LoadedNetwork
    from deploykit.quantize.calibration import CalibrationSet
    from deploykit.recipe import Recipe
    from deploykit.records import Artifact, SkippedTarget

ALL = "all"
HELD_OUT_CLIPS = 2


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
    calibration: CalibrationOption = None,
    calibration_images: CalibrationImagesOption = 32,
    estimator: EstimatorOption = None,
    equalize: EqualizeOption = None,
    correct_biases: CorrectBiasesOption = Switch.ON,
    max_drop: MaxDropOption = None,
    integer_io: IntegerIoOption = False,
    held_out: HeldOutOption = 32,
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
    from deploykit.cli.export_table import show, show_dry_run
    from deploykit.images.preprocess import image_paths
    from deploykit.lowering import ExportOptions
    from deploykit.network import recipe_for
    from deploykit.recipe import default_recipe, project_recipe
    from deploykit.targets.schemes import check_schemes

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
            passes=None if passes is None else tuple(split_names(passes)),
            skip_passes=tuple(split_names(skip_pass or [])),
        )
        if optimize is Switch.OFF and (passes or skip_pass):
            raise _contradiction()
        named: Sequence[Target] = tuple(Target)
        parsed = parse_size(size)
        if variant is not None:
            chosen, options, named = _apply_variant(chosen, variant, options, (precision, input_kind, output_kind))
        options = with_quantization(
            options,
            estimator=estimator,
            equalize=equalize,
            correct_biases=correct_biases,
            max_drop=max_drop,
            integer_io=integer_io,
        )
        if parsed is not None:
            chosen = chosen.with_size(*parsed)
        asked, skipped = _targets(target, named)
        check_schemes(asked, options.precision)
        network = load(chosen, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
        if dry_run:
            from deploykit.preflight.look import preflight

            looked = preflight(network, asked, options, skipped=skipped, step=say)
        else:
            options, images_of_ranges = calibrated(network.recipe, options, calibration, calibration_images, say)
            job = _Job(network, options, output_dir, photos, images_of_ranges, held_out, verbose, explain)
            done = _write(job, asked, say)
    for note in network.notes:
        stderr_console().print(f"note: {note}", markup=False)
    if dry_run:
        show_dry_run(looked, as_json)
        return
    if verbose:
        for _, error in done.failed:
            traceback.print_exception(error)
    show(replace(done, skipped=skipped), as_json)


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

    names = split_names(asked or [ALL])
    require_known(names, (*Target, ALL), "--target", "There is no such target.")
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


@dataclass(frozen=True)
class _Job:
    """What is the same for every target."""

    network: LoadedNetwork
    options: ExportOptions
    output_dir: Path
    photos: Sequence[Path]
    calibration: CalibrationSet | None
    held_out: int
    verbose: bool
    explain: bool


def _write(job: _Job, targets: Sequence[Target], say: Callable[[str], None]) -> Outcome:
    """Write every target; one that fails does not keep the others from being made."""
    from deploykit.cli.export_table import Outcome
    from deploykit.errors import DeploykitError
    from deploykit.explain import explain as explained_by
    from deploykit.lowering import on_files, options_for, plan_export
    from deploykit.pipeline import prepare_export
    from deploykit.provenance.measurements import keep_measurements
    from deploykit.verify.samples import draw_samples

    recipe = job.network.recipe
    plans = {target: options_for(target, job.options, alone=len(targets) == 1) for target in targets}
    for target, chosen in plans.items():
        plan_export(recipe, target, chosen)
    say("capturing and simplifying the network")
    exporter = prepare_export(job.network, draw_samples(recipe, job.photos))
    artifacts: list[Artifact] = []
    failed: list[tuple[Target, DeploykitError]] = []
    explained: list[Explanation] = []
    for target, chosen in plans.items():
        try:
            artifact = exporter.write(
                target, chosen, job.output_dir, calibration=job.calibration, verbose=job.verbose, step=say
            )
            artifacts.append(artifact)
            if job.explain:
                say(f"{target}: explaining its passes")
                on_file = tuple(one for one in artifact.passes if one.name in on_files(target))
                explained.append(explained_by(exporter.training, recipe, artifact.plan, on_file))
        except DeploykitError as error:
            failed.append((target, error))
    run = _evaluation(job, artifacts, say)
    kept = {} if run is None else {one.path: one for one in keep_measurements(artifacts, run)}
    evaluated = tuple(kept.get(one.path, one) for one in artifacts)
    return Outcome(evaluated, (), tuple(failed), tuple(explained), run)


def _evaluation(job: _Job, artifacts: Sequence[Artifact], say: Callable[[str], None]) -> EvaluationRun | None:
    """Return the evaluation on held-out portraits of the network and of those ``artifacts`` that hold integers."""
    from deploykit.errors import RecipeError
    from deploykit.evaluation.evaluate import Options, evaluate

    quantized = [one for one in artifacts if one.quantization is not None]
    if not quantized or not job.held_out:
        return None
    try:
        return evaluate(
            job.network, *quantized, options=Options(samples=job.held_out, clips=HELD_OUT_CLIPS), report=say
        )
    except RecipeError:
        # No network of photos and masks: nothing to hold against portraits.
        return None
