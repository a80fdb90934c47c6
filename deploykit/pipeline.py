"""The straight line: recipe and checkpoint → training graph → deploy graph → verified files on disk."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch

from deploykit.artifact import hash_files, hash_items, staged, write_manifest
from deploykit.certificate.file import NAME as CERTIFICATE
from deploykit.certificate.file import write_certificate
from deploykit.certificate.make import certify
from deploykit.certificate.records import Certificate
from deploykit.chatter import contained
from deploykit.description import describe
from deploykit.errors import TargetError, VerificationError
from deploykit.graph.capture import active_in_training, weights
from deploykit.graph.graph import Graph
from deploykit.graph.optimize import PASSES as OPTIMIZING
from deploykit.graph.passes.build_in_preprocessing import NAME as BUILD_IN
from deploykit.graph.passes.build_in_preprocessing import SMALLEST_NORMAL_HALF
from deploykit.lowering import (
    ExportOptions,
    decides_rewriting,
    finish,
    needs_calibration,
    optional_passes,
    options_for,
    plan_export,
    rewritten,
)
from deploykit.network import LoadedNetwork
from deploykit.quantize.calibration import CalibrationSet, calibration_set
from deploykit.quantize.file import float_plan, quantize_file
from deploykit.quantize.half_range import kept_in_float32
from deploykit.quantize.prepare import Prepared, prepare
from deploykit.recipe import Recipe
from deploykit.records import Artifact, Comparison, ExportPlan, PassReport, SkippedTarget, TensorRecord
from deploykit.targets.base import Array, ExportRequest, Runtime
from deploykit.targets.table import TARGETS, part, require
from deploykit.verify.compare import best_class, compare
from deploykit.verify.contract import classes_in, compare_output, contracted, require_scores, two_at_least
from deploykit.verify.graph_inputs import graph_inputs
from deploykit.verify.lint import Classes, lint_output
from deploykit.verify.reference import Outputs, gather, reference_outputs
from deploykit.verify.reparam import count_findings, deploy_graph, training_graph
from deploykit.verify.samples import Sample, feed, read_back
from deploykit.version import __version__
from deploykit.vocab import OutputKind, Precision, Target

Step: TypeAlias = Callable[[str], None]
DEFAULT_FOLDER = Path("artifacts")
# A few tiny weights are in every network; above this share they are worth a note.
WORTH_A_NOTE = 0.01


def compare_runtime(
    runtime: Runtime,
    recipe: Recipe,
    plan: ExportPlan,
    samples: Sequence[Sample],
    reference: Sequence[Outputs],
) -> tuple[Comparison, ...]:
    """Return the comparison of every deployed output of the open file of ``plan`` with the training form's."""
    return compare_values(run_samples(runtime, recipe, samples), recipe, plan, samples, reference)


def run_samples(runtime: Runtime, recipe: Recipe, samples: Sequence[Sample]) -> list[dict[str, Array]]:
    """Return what the open file gives for each of ``samples``: name of output → array, in the network's layout."""
    return [read_back(runtime.run(feed(one, runtime.inputs, recipe)), runtime.outputs) for one in samples]


def compare_values(
    measured: Sequence[Mapping[str, Array]],
    recipe: Recipe,
    plan: ExportPlan,
    samples: Sequence[Sample],
    reference: Sequence[Outputs],
) -> tuple[Comparison, ...]:
    """Return the comparison of what ``run_samples`` gave for the file of ``plan``."""
    tolerance = recipe.file.tolerances.of(plan.precision)
    return tuple(
        compare_output(
            output,
            [np.asarray(one[output.name]) for one in measured],
            gather(reference, output.name),
            tolerance,
            plan.output_kind,
            pictures=[sample.picture for sample in samples],
        )
        for output in recipe.deployed()
    )


def _with_color_order(record: TensorRecord, recipe: Recipe) -> TensorRecord:
    """Return ``record`` with the order in which the file takes pixels: the recipe's, where the format has no say."""
    orders = {item.name: item.color_order for item in recipe.file.inputs if item.kind == "image"}
    if record.dtype != "uint8" or record.color_order is not None:
        return record
    return replace(record, color_order=orders.get(record.name))


@dataclass(frozen=True)
class Exporter:
    """A network captured, simplified and certified once, with the reference that every file is compared with."""

    network: LoadedNetwork
    training: Graph
    deploy: Graph
    samples: tuple[Sample, ...]
    reference: tuple[Outputs, ...]
    certificate: Certificate
    _exact: dict[tuple[object, ...], Graph] = field(default_factory=dict, init=False, repr=False)
    _prepared: dict[str, Prepared] = field(default_factory=dict, init=False, repr=False)

    def exact(self, plan: ExportPlan) -> Graph:
        """Return the graph that ``plan`` rounds and lowers, seen to equal the training form in float64.

        Raises VerificationError where rewriting changed the network, naming the pass.
        """
        if (key := decides_rewriting(plan)) not in self._exact:
            graph = rewritten(self.training, self.network.recipe, plan)
            self._require_equal(graph, plan)
            self._exact[key] = graph
        return self._exact[key]

    def _ready(self, plan: ExportPlan, calibration: CalibrationSet | None, say: Step) -> Prepared:
        """Return the graph that is written for ``plan``, prepared once for all limits of what integers may cost."""
        any_limit = None if plan.quantization is None else replace(plan.quantization, max_drop=None)
        key = replace(plan, quantization=any_limit).digest()
        if key not in self._prepared:
            self._prepared[key] = prepare(self.exact(plan), plan, self.network.recipe, calibration, say)
        return self._prepared[key]

    def _require_equal(self, graph: Graph, plan: ExportPlan) -> None:
        recipe, sample = self.network.recipe, self.samples[0]
        # Of a mask the scores are the reference: where two of them are equal but for rounding, either class is right.
        kind = OutputKind.LOGITS if plan.output_kind is OutputKind.MASK else plan.output_kind
        optional = optional_passes(plan.target)
        plain = replace(plan, output_kind=kind, passes=tuple(name for name in plan.passes if name not in optional))
        reference = run_exactly(rewritten(self.training, recipe, plain), recipe, sample)
        limit = recipe.file.tolerances.float64.record()
        failures = _rewriting_failures(graph, recipe, sample, reference, plan.output_kind)
        if limit.relative_l2 is None or not failures:
            return
        for name in (name for name in plan.passes if name in OPTIMIZING):
            until = rewritten(self.training, recipe, plan, until=name)
            if failures := _rewriting_failures(until, recipe, sample, reference, plan.output_kind):
                break
        raise VerificationError(
            "Rewriting changed what the network computes; nothing was exported.",
            where=f"{recipe.name}: the pass {name}",
            found=f"{'; '.join(failures)}, in float64",
            expected=f"a relative L2 error of at most {limit.relative_l2:.3g}: {limit.reason}",
            next_step=f"export with --skip-pass {name}, and report the network",
        )

    def write(
        self,
        target: Target,
        options: ExportOptions,
        output_dir: Path,
        *,
        calibration: CalibrationSet | None = None,
        verbose: bool = False,
        step: Step | None = None,
    ) -> Artifact:
        """Write one file below ``output_dir``, run it from disk, compare, and only then put it in place.

        ``calibration`` are the images that the plan names, for precisions with integers.

        Raises:
            TargetError: the target is not installed, or cannot take the plan or the network.
            VerificationError: the file on disk differs from the training form; nothing is left behind.
        """
        say = step or (lambda message: None)
        recipe = self.network.recipe
        row = require(target)
        plan = plan_export(recipe, target, options)
        for output in recipe.deployed():
            require_scores(output, gather(self.reference, output.name), plan.output_kind)
        say(f"{target}: lowering")
        prepared = self._ready(plan, calibration, say)
        graph = finish(prepared.graph, plan)
        kept = kept_in_float32(graph, plan, recipe, calibration, say)
        request = ExportRequest(graph, float_plan(plan), recipe, describe(self.network, plan), kept.values)
        with staged(output_dir / recipe.name / plan.folder()) as folder:
            path = folder / f"{recipe.name}{row.suffix}"
            say(f"{target}: converting")
            with contained(verbose):
                on_file: tuple[PassReport, ...] = part(target, "export").write(request, path)
            made = (
                None if plan.precision.is_float else quantize_file(path, plan, recipe, prepared, calibration, say=say)
            )
            say(f"{target}: running the file")
            with contained(verbose), part(target, "runtime").open_artifact(path) as runtime:
                measured = run_samples(runtime, recipe, self.samples)
                inputs = tuple(_with_color_order(record, recipe) for record in runtime.inputs)
                outputs, name = runtime.outputs, runtime.name
            comparisons = compare_values(measured, recipe, plan, self.samples, self.reference)
            _refuse_difference(recipe, plan, comparisons)
            _refuse_broken(recipe, plan, measured, self.reference)
            files = hash_files(path)
            write_certificate(self.certificate, folder / CERTIFICATE)
            artifact = Artifact(
                recipe=recipe.name,
                plan=plan,
                path=path,
                content_hash=hash_items(part(target, "export").content_items(path)),
                size_bytes=sum(item.size_bytes for item in files),
                files=files,
                recipe_sha256=recipe.sha256,
                checkpoint_sha256=self.network.checkpoint_sha256,
                inputs=inputs,
                outputs=outputs,
                toolchain=toolchain(target),
                passes=(*graph.reports, *on_file),
                comparisons=comparisons,
                recipe_table=recipe.file.model_dump(mode="json"),
                lint=(*lint(graph, plan), *kept.notes),
                runtime=name,
                certificate=hash_files(folder / CERTIFICATE)[0],
                quantization=made,
            )
            write_manifest(artifact, folder)
        return replace(artifact, path=output_dir / recipe.name / plan.folder() / path.name)


def simplified(network: LoadedNetwork) -> tuple[Graph, Graph]:
    """Return the training graph and the deploy graph of ``network``, both in float64.

    Raises VerificationError where the recipe's expected counts are missed, or training behaviour was captured.
    """
    training = training_graph(network)
    deploy = deploy_graph(training, network.recipe)
    findings = [f"batch statistics or dropout in {module}" for module in active_in_training(training)]
    findings += count_findings(network.recipe, deploy)
    if findings:
        raise VerificationError(
            "The network did not simplify as its recipe expects; nothing was exported.",
            where=str(network.recipe.path),
            found="; ".join(findings),
            next_step="look at deploykit verify-reparam, and correct the network or [expected]",
        )
    return training, deploy


def prepare_export(network: LoadedNetwork, samples: Sequence[Sample]) -> Exporter:
    """Return ``network`` captured, simplified, certified and evaluated on ``samples``, ready to write files.

    Raises VerificationError where the recipe's expected counts are missed, or a block cannot be certified.
    """
    training, deploy = simplified(network)
    reference = reference_outputs(network.module, network.recipe, samples)
    certificate = certify(network, samples, training=training, deploy=deploy)
    if not certificate.passed:
        raise VerificationError(
            "Folding and merging could not be certified; nothing was exported.",
            where=str(network.recipe.path),
            found="; ".join(certificate.faults()[:5]),
            next_step="look at deploykit verify-reparam --certificate FILE",
        )
    return Exporter(network, training, deploy, tuple(samples), reference, certificate)


def installed_targets() -> tuple[tuple[Target, ...], tuple[SkippedTarget, ...]]:
    """Return the targets that can be written here, and the others with what they lack."""
    ready, skipped = [], []
    for target, row in TARGETS.items():
        missing = row.missing()
        if missing:
            skipped.append(SkippedTarget(target, f"not installed: {', '.join(missing)}; {row.install_command()}"))
        else:
            ready.append(target)
    return tuple(ready), tuple(skipped)


def _rewriting_failures(
    graph: Graph, recipe: Recipe, sample: Sample, reference: Outputs, kind: OutputKind
) -> tuple[str, ...]:
    """Return what the float64 ``graph`` of ``kind`` exceeds on ``sample``; ``reference`` holds scores for a mask."""
    tolerance = recipe.file.tolerances.float64.record()
    found = run_exactly(graph, recipe, sample)
    compared = []
    for output in recipe.deployed():
        value, expected = [found[output.name]], [np.asarray(reference[output.name])]
        if kind is OutputKind.MASK:
            compared.append(compare_output(output, value, expected, tolerance, kind))
        else:
            compared.append(compare(output.name, value, expected, tolerance))
    return tuple(failure for one in compared for failure in one.failures)


def run_exactly(graph: Graph, recipe: Recipe, sample: Sample) -> dict[str, np.ndarray]:
    """Return the outputs of the float64 ``graph``, whose image inputs take pixels or the network's own tensors."""
    return {
        name: value.numpy()
        for name, value in zip(graph.outputs, graph.run(*graph_inputs(graph, recipe, sample)), strict=True)
    }


def _refuse_difference(recipe: Recipe, plan: ExportPlan, comparisons: Sequence[Comparison]) -> None:
    failures = [f"{one.output}: {failure}" for one in comparisons for failure in one.failures]
    if failures:
        worst = max(comparisons, key=lambda one: one.max_abs_error)
        raise VerificationError(
            f"The {plan.target} file does not give what the checkpoint gives; it was not kept.",
            where=f"{recipe.name}, {plan.precision}, worst at {worst.output}{list(worst.worst_index)}",
            found="; ".join(failures),
            expected=f"the recipe's tolerances for {plan.precision}: {worst.tolerance.reason}",
            next_step="try --precision fp32, or look at the layers with deploykit verify-reparam",
        )


def _refuse_broken(
    recipe: Recipe, plan: ExportPlan, measured: Sequence[Mapping[str, Array]], reference: Sequence[Outputs]
) -> None:
    """Raise VerificationError for outputs that are broken in a way which no tolerance tells."""
    faults = []
    for output in recipe.deployed():
        scores = gather(reference, output.name)
        found = [np.asarray(one[output.name], np.float64) for one in measured]
        expected = [contracted(one, plan.output_kind) for one in scores]
        classes = None
        if len(output.classes) > 1:
            best = [classes_in(one, plan.output_kind) for one in found]
            classes = Classes(best, [best_class(two_at_least(one)) for one in scores])
        lints = lint_output(found, expected, plan.precision, classes)
        faults += [f"{output.name}: {one.rule}: {one.detail}" for one in lints if one.fails]
    if faults:
        raise VerificationError(
            f"The outputs of the {plan.target} file are broken, although they are within the tolerances; "
            "it was not kept.",
            where=f"{recipe.name}, {plan.precision}",
            found="; ".join(faults),
            expected="values as varied as those of the checkpoint, and its classes",
            next_step="try --precision fp32, or another --estimator",
        )


def lint(graph: Graph, plan: ExportPlan) -> tuple[str, ...]:
    """Return what a person should know about the file although it passed."""
    notes = [skip.reason for skip in graph.report(BUILD_IN).skipped]
    if plan.precision is Precision.FP16:
        values = torch.cat([w.detach().abs().flatten() for w in weights(graph).values() if w.is_floating_point()])
        tiny = int(((values > 0) & (values < SMALLEST_NORMAL_HALF)).sum())
        if tiny > WORTH_A_NOTE * values.numel():
            notes.append(f"{tiny} of {values.numel()} weights are subnormal or zero in half precision")
    return tuple(notes)


def toolchain(target: Target) -> dict[str, str]:
    """Return the versions that decided what the file is made of."""
    return {
        "deploykit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        **TARGETS[target].versions(),
    }


def export(
    network: LoadedNetwork,
    targets: Sequence[Target],
    samples: Sequence[Sample],
    output_dir: Path,
    options: ExportOptions | None = None,
    *,
    calibration: CalibrationSet | None = None,
    verbose: bool = False,
    step: Step | None = None,
) -> tuple[Artifact, ...]:
    """Write and verify one file per target; the first that fails stops the rest.

    Precisions with integers are calibrated on ``calibration``, without it on synthetic portraits. Every plan is
    checked before anything is converted. Raises as ``Exporter.write`` does.
    """
    chosen = options or ExportOptions()
    if not targets:
        raise TargetError("No target is installed.", expected=f"at least one of {', '.join(TARGETS)}")
    if needs_calibration(chosen):
        calibration = calibration or calibration_set(network.recipe)
        chosen = replace(chosen, calibration=calibration.record.sha256)
    each = {target: options_for(target, chosen, alone=len(targets) == 1) for target in targets}
    for target, own in each.items():
        require(target)
        plan_export(network.recipe, target, own)
    if step:
        step("capturing and simplifying the network")
    exporter = prepare_export(network, samples)
    return tuple(
        exporter.write(target, own, output_dir, calibration=calibration, verbose=verbose, step=step)
        for target, own in each.items()
    )
