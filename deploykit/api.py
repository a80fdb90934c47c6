"""The Python calls behind the commands: each takes names or records and returns records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from deploykit.artifact import MANIFEST, read_artifact, require_unchanged
from deploykit.benchmark import bench
from deploykit.chatter import contained
from deploykit.comparison import compare
from deploykit.description import describe
from deploykit.errors import ArtifactError
from deploykit.evaluation.evaluate import evaluate
from deploykit.graph.graph import Graph
from deploykit.images.preprocess import Pixels, read_image
from deploykit.inspection import inspect
from deploykit.lowering import ExportOptions, plan_export
from deploykit.network import LoadedNetwork, load_network, recipe_for
from deploykit.pipeline import DEFAULT_FOLDER, Step, installed_targets, prepare_export
from deploykit.pipeline import export as export_network
from deploykit.quantize.calibration import DEFAULT_IMAGES, calibration_set
from deploykit.quantize.sensitivity import Sensitivity, measure_sensitivity
from deploykit.quantize.sensitivity import check as check_sensitivity
from deploykit.recipe import Recipe, default_recipe, load_recipe, project_recipe, recipe_from_table
from deploykit.records import Artifact, Verification
from deploykit.targets.base import Array, Runtime
from deploykit.targets.table import part, require, target_of
from deploykit.verification import verify as verify_artifact
from deploykit.verify.feedback import first_feedback, next_feedback
from deploykit.verify.reparam import deploy_graph, training_graph
from deploykit.verify.reparam import verify_reparam as verify_network
from deploykit.verify.samples import draw_samples, feed, picture_sample, read_back
from deploykit.vocab import Precision, Target

__all__ = [
    "bench",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "load",
    "load_recipe",
    "run",
    "run_sequence",
    "sensitivity",
    "simplify",
    "verify_artifact",
    "verify_reparam",
]

Network = LoadedNetwork | Recipe | str | Path | None


def load(
    recipe: Network = None, *, checkpoint: Path | str | None = None, checkpoint_key: str | None = None
) -> LoadedNetwork:
    """Return a network with its trained weights, in evaluation mode.

    ``recipe`` is a bundled name, the path of a recipe or a ``Recipe``; None takes the one that ``checkpoint``'s keys
    belong to, or without a checkpoint the default. Raises RecipeError or CheckpointError.
    """
    if isinstance(recipe, LoadedNetwork):
        return recipe
    path = None if checkpoint is None else Path(checkpoint)
    if not isinstance(recipe, Recipe):
        here = Path.cwd()
        recipe = recipe_for(recipe or project_recipe(here), path, default_recipe(here), checkpoint_key)
    return load_network(recipe, checkpoint=path, key=checkpoint_key)


def simplify(recipe: Network = None, *, checkpoint: Path | str | None = None) -> Graph:
    """Return the deploy graph: BatchNorm folded, branches merged, float64 weights, one report per pass."""
    network = load(recipe, checkpoint=checkpoint)
    return deploy_graph(training_graph(network), network.recipe)


def verify_reparam(
    recipe: Network = None,
    *,
    checkpoint: Path | str | None = None,
    checkpoint_key: str | None = None,
    images: Sequence[Path] = (),
    self_test: bool = False,
    report: Callable[[int, int, str], None] | None = None,
) -> Verification:
    """Return the comparison of training form and deploy graph in float64 and float32, with its verdict.

    Compared on seeded noise, on synthetic portraits and on ``images``. A failed verification is a record whose
    ``passed`` is False, not an error.
    """
    network = load(recipe, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
    samples = draw_samples(network.recipe, images)
    return verify_network(network, samples, self_test=self_test, report=report)


def export(
    recipe: Network = None,
    *,
    targets: Iterable[Target | str] | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_key: str | None = None,
    output_dir: Path | str = DEFAULT_FOLDER,
    options: ExportOptions | None = None,
    images: Sequence[Path] = (),
    calibration: Path | str | None = None,
    verbose: bool = False,
    step: Step | None = None,
) -> tuple[Artifact, ...]:
    """Write one verified file per target below ``output_dir`` and return what each is.

    None as ``targets`` means every installed one. Each file was loaded from disk, run on its runtime and compared
    with the training form before it was put in place. Raises VerificationError for a file that differs, TargetError
    for what a target cannot do; such a file is not kept. ``calibration`` is a folder of photos that the ranges of
    precisions with integers come from; without it they come from synthetic portraits.
    """
    network = load(recipe, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
    chosen = installed_targets()[0] if targets is None else tuple(Target(target) for target in targets)
    samples = draw_samples(network.recipe, images)
    ranges = None if calibration is None else calibration_set(network.recipe, Path(calibration))
    return export_network(
        network, chosen, samples, Path(output_dir), options, calibration=ranges, verbose=verbose, step=step
    )


def sensitivity(
    recipe: Network = None,
    *,
    target: Target | str,
    checkpoint: Path | str | None = None,
    checkpoint_key: str | None = None,
    options: ExportOptions | None = None,
    calibration: Path | str | None = None,
    calibration_images: int = DEFAULT_IMAGES,
    layers: int | None = None,
    step: Step | None = None,
) -> Sensitivity:
    """Return what each layer alone costs in the integers of one target's file, the worst first.

    ``options`` are int8 where not given, without correction of biases: a correction makes up for the error of all
    weights in integers at once, and is one of its own beside a single layer. ``layers``, the worst as simulated, are
    measured on the file; None takes all, or ten where files run slowly here. ``calibration`` is a folder of photos, of
    which so many ``calibration_images`` give the ranges and judge; without it they are synthetic portraits. Raises
    UsageError for what is out of range, otherwise as ``export``.
    """
    chosen, asked = Target(target), options or ExportOptions(precision=Precision.INT8, correct_biases=False)
    check_sensitivity(asked.precision, layers)
    require(chosen)
    network = load(recipe, checkpoint=checkpoint, checkpoint_key=checkpoint_key)
    plan_export(network.recipe, chosen, asked)
    say = step or (lambda message: None)
    say("reading the calibration images")
    images = calibration_set(network.recipe, None if calibration is None else Path(calibration), calibration_images)
    plan = plan_export(network.recipe, chosen, replace(asked, calibration=images.record.sha256))
    say("capturing and simplifying the network")
    exporter = prepare_export(network, draw_samples(network.recipe))
    return measure_sensitivity(
        exporter.exact(plan), plan, network.recipe, images, metadata=describe(network, plan), most=layers, say=say
    )


def run(
    artifact: Artifact | Path | str,
    inputs: Mapping[str, Array] | None = None,
    *,
    image: Path | str | Pixels | None = None,
    threads: int = 1,
) -> dict[str, Array]:
    """Return name → array of the outputs of an exported file, computed by its own runtime.

    ``inputs`` are arrays as the file declares them. Instead, ``image`` is a photo (a path, or RGB pixels (H, W, 3)),
    preprocessed as the recipe of the artifact's manifest says; a network for video takes it as a first frame. Raises
    ArtifactError where neither fits.
    """
    if image is not None and inputs is None:
        (only,) = run_sequence(artifact, [image], threads=threads)
        return only
    path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
    if isinstance(artifact, Artifact) or path.suffix in ("", ".json"):
        path = _known(artifact).path
    if inputs is None:
        raise ArtifactError("There is nothing to run the file on.", where=str(path), expected="inputs or an image")
    with contained(), part(target_of(path), "runtime").open_artifact(path, threads) as runtime:
        outputs: dict[str, Array] = runtime.run(inputs)
    return outputs


def run_sequence(
    artifact: Artifact | Path | str, images: Iterable[Path | str | Pixels], *, threads: int = 1
) -> Iterator[dict[str, Array]]:
    """Yield name → array of the outputs of an exported file for each of ``images``, the frames of a video in order.

    An image is a photo as in ``run``. Where the recipe says so, each frame's probability is fed to the next one;
    otherwise every image stands alone. Raises ArtifactError where the file takes more than photos and feedback.
    """
    record = _known(artifact)
    recipe = recipe_from_table(record.recipe_table, record.path.parent / MANIFEST)
    others = [item.name for item in recipe.file.inputs if item.kind != "image" and item.feedback is None]
    if others:
        raise ArtifactError(
            "A photo alone is not all that the file takes.",
            where=str(record.path),
            found="one photo",
            expected="values for " + ", ".join(others) + " as well",
            next_step="call deploykit.run(path, inputs) from Python with an array for each input",
        )
    feedback = first_feedback(recipe)
    with ExitStack() as stack:
        with contained():
            opened = part(record.plan.target, "runtime").open_artifact(record.path, threads)
            runtime: Runtime = stack.enter_context(opened)
        for image in images:
            pixels = read_image(Path(image)) if isinstance(image, (str, Path)) else image
            inputs = feed(picture_sample(recipe, pixels, feedback), runtime.inputs, recipe)
            with contained():
                outputs = runtime.run(inputs)
            feedback = next_feedback(recipe, read_back(outputs, runtime.outputs), record.plan.output_kind)
            yield outputs


def _known(artifact: Artifact | Path | str) -> Artifact:
    """Return what the manifest says of ``artifact``, whose files it describes."""
    return require_unchanged(artifact if isinstance(artifact, Artifact) else read_artifact(Path(artifact)))
