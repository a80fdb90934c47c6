"""Verification of folding and merging: the training form against the deploy graph, in float64 and in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from deploykit.graph.capture import active_in_training, capture, modules_in_training
from deploykit.graph.graph import Graph
from deploykit.graph.round import round_weights
from deploykit.graph.simplify import simplify
from deploykit.network import LoadedNetwork
from deploykit.recipe import Recipe
from deploykit.records import Comparison, Injection, PassReport, StageCount, Verification
from deploykit.verify.compare import compare
from deploykit.verify.localize import first_difference, first_not_finite
from deploykit.verify.reference import Outputs, as_tensors, gather, reference_outputs
from deploykit.verify.samples import Sample
from deploykit.verify.self_test import Report, dead_channels, inject

FOLD, MERGE = "fold_batch_norm", "merge_branches"


def training_graph(network: LoadedNetwork) -> Graph:
    """Return the captured training form of ``network``, its weights in float64."""
    recipe = network.recipe
    examples = tuple(torch.zeros(item.shape) for item in recipe.file.inputs)
    return capture(
        network.module,
        examples,
        tuple(item.spec() for item in recipe.file.inputs),
        tuple(output.name for output in recipe.file.outputs),
    )


def deploy_graph(training: Graph, recipe: Recipe) -> Graph:
    """Return ``training`` simplified to the outputs that the recipe deploys, its weights still in float64."""
    return simplify(training, keep_outputs=[output.name for output in recipe.deployed()])


def run_graph(graph: Graph, recipe: Recipe, samples: Sequence[Sample], dtype: torch.dtype) -> tuple[Outputs, ...]:
    """Return the outputs of ``graph`` for every sample."""
    return tuple(
        {
            name: value.numpy()
            for name, value in zip(graph.outputs, graph.run(*as_tensors(sample, recipe, dtype)), strict=True)
        }
        for sample in samples
    )


def verify_reparam(
    network: LoadedNetwork, samples: Sequence[Sample], *, self_test: bool = False, report: Report | None = None
) -> Verification:
    """Return the verdict on ``network``: every output in float64 and in float32, and the counts of the recipe.

    A network in training mode is a finding that names the modules, and nothing is compared. With ``self_test``
    each fold is damaged in turn, and a damage that changes the output and is not caught is a finding.
    """
    recipe = network.recipe
    training_modules = modules_in_training(network.module)
    if training_modules:
        return _refused(network, "in training mode: " + _some(training_modules))
    training = training_graph(network)
    active = active_in_training(training)
    if active:
        return _refused(network, "computes with batch statistics or dropout although evaluated: " + _some(active))
    deploy = deploy_graph(training, recipe)
    rounded = round_weights(deploy)
    reference = reference_outputs(network.module, recipe, samples)
    exact = run_graph(deploy, recipe, samples, torch.float64)
    shipped = run_graph(rounded, recipe, samples, torch.float32)
    tolerances = recipe.file.tolerances
    comparisons: list[tuple[str, Comparison]] = []
    for output in recipe.deployed():
        truth, classes = gather(reference, output.name), len(output.classes)
        for name, measured, section in (
            ("float64", exact, tolerances.float64),
            ("float32", shipped, tolerances.float32),
        ):
            values = gather(measured, output.name)
            verdict = compare(
                output.name,
                values,
                truth,
                section.record(),
                classes=classes,
                pictures=[sample.picture for sample in samples],
            )
            comparisons.append((name, verdict))
    findings = [*count_findings(recipe, deploy), *_not_finite(recipe, reference, training, samples)]
    findings += _guilty_module(comparisons, training, deploy, recipe, samples[:1])
    injections: tuple[Injection, ...] = ()
    if self_test:
        injections = inject(training, recipe, samples[:1], report or (lambda done, total, module: None))
        missed = [f"{one.dropped} of {one.module}" for one in injections if one.outcome == "missed"]
        if missed:
            findings.append("self-test: damage not caught: " + _some(missed))
    return Verification(
        recipe=recipe.name,
        checkpoint_sha256=network.checkpoint_sha256,
        stages=stage_counts(deploy),
        passes=rounded.reports,
        comparisons=tuple(comparisons),
        findings=tuple(findings),
        notes=network.notes,
        injections=injections,
        dead_channels=dead_channels(training),
        expected_folds=recipe.file.expected.fold_batch_norm,
        expected_merges=recipe.file.expected.merge_branches,
    )


def _refused(network: LoadedNetwork, finding: str) -> Verification:
    return Verification(network.recipe.name, network.checkpoint_sha256, (), (), (), (finding,), network.notes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _not_finite(recipe: Recipe, reference: Sequence[Outputs], training: Graph, samples: Sequence[Sample]) -> list[str]:
    found = []
    for output in recipe.deployed():
        for sample, values in zip(samples, reference, strict=True):
            if not torch.from_numpy(values[output.name]).isfinite().all():
                module = first_not_finite(training, as_tensors(sample, recipe, torch.float64))
                found.append(
                    f"the training form itself returns NaN or infinity in {output.name} on {sample.name}"
                    + (f"; first in {module}" if module else "")
                )
                break
    return found


def _guilty_module(
    comparisons: Sequence[tuple[str, Comparison]],
    training: Graph,
    deploy: Graph,
    recipe: Recipe,
    samples: Sequence[Sample],
) -> list[str]:
    if all(comparison.passed for name, comparison in comparisons if name == "float64"):
        return []
    bound = recipe.file.tolerances.float64.relative_l2 or 1e-12
    for sample in samples:
        module = first_difference(training, deploy, as_tensors(sample, recipe, torch.float64), bound)
        if module:
            return [f"the first module whose value differs is {module}"]
    return []


def count_findings(recipe: Recipe, deploy: Graph) -> list[str]:
    """Return what is wrong with the numbers of folds and merges, against those that the recipe expects."""
    found = []
    for name, expected in ((FOLD, recipe.file.expected.fold_batch_norm), (MERGE, recipe.file.expected.merge_branches)):
        report = deploy.report(name)
        if expected is not None and len(report.fired) != expected:
            reasons = (
                "; ".join(f"{reason} ({count})" for reason, count in report.reasons().items()) or "nothing skipped"
            )
            found.append(f"{name} fired {len(report.fired)} times, the recipe expects {expected}; skipped: {reasons}")
    return found


def stage_counts(deploy: Graph) -> tuple[StageCount, ...]:
    """Return folds, merges and skipped places per stage: the first two parts of the module path."""
    counts: dict[str, list[int]] = {}

    def add(module: str, column: int) -> None:
        stage = ".".join(module.split(".")[:2])
        counts.setdefault(stage, [0, 0, 0])[column] += 1

    reports: dict[str, PassReport] = {name: deploy.report(name) for name in (FOLD, MERGE)}
    for column, name in enumerate((FOLD, MERGE)):
        for fired in reports[name].fired:
            add(fired.modules[0], column)
    for skipped in reports[FOLD].skipped:
        add(skipped.module, 2)
    return tuple(StageCount(stage, *numbers) for stage, numbers in counts.items())
