"""What each pass of an export changed: how often it fired, why not elsewhere, the graph before and after."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from deploykit.graph import optimize, simplify
from deploykit.graph.capture import weights
from deploykit.graph.cost import graph_cost
from deploykit.graph.graph import Graph, aten, calls
from deploykit.lowering import target_passes, with_contracts
from deploykit.recipe import Recipe
from deploykit.records import ExportPlan, PassReport
from deploykit.vocab import Convention, Precision, Target

_TRANSPOSES = (aten.permute.default, aten.transpose.int, aten.t.default)


@dataclass(frozen=True)
class GraphFigures:
    """One graph in numbers: ``weight_bytes`` in the precision of the file, multiply-accumulates of one image."""

    operations: int
    transposes: int
    macs: int
    weight_bytes: int


@dataclass(frozen=True)
class PassEffect:
    """What one pass did: ``did`` and ``skipped`` are text → how often; the graph before and after it.

    ``after`` holds what earlier passes found to do once this one had run. ``on_file``: it rewrites the file that the
    converter wrote, and the graph stays as it is.
    """

    name: str
    fired: int
    did: dict[str, int]
    skipped: dict[str, int]
    before: GraphFigures
    after: GraphFigures
    on_file: bool = False


@dataclass(frozen=True)
class Explanation:
    """The passes of one export in order."""

    target: Target
    passes: tuple[PassEffect, ...]


def explain(training: Graph, recipe: Recipe, plan: ExportPlan, on_file: tuple[PassReport, ...] = ()) -> Explanation:
    """Return what every pass of ``plan`` does to the captured network; ``on_file`` reports those on the file."""
    steps = list(_steps(training, recipe, plan))
    effects = []
    for (_, before), (name, after) in pairwise(steps):
        report = _new_report(before, after, name)
        effects.append(_effect(name, report, _figures(before, plan), _figures(after, plan)))
    last = _figures(steps[-1][1], plan)
    effects += [replace(_effect(report.name, report, last, last), on_file=True) for report in on_file]
    return Explanation(plan.target, tuple(effects))


def _steps(training: Graph, recipe: Recipe, plan: ExportPlan) -> Iterator[tuple[str, Graph]]:
    """Yield the graph after each pass, the first time as it was captured, with the outputs that are deployed."""
    kept = [output.name for output in recipe.deployed()]
    graph = simplify.simplify(training, keep_outputs=kept, names=())
    yield "", graph
    done: list[str] = []
    for name in (name for name in plan.passes if name in simplify.PASSES):
        done.append(name)
        graph = simplify.simplify(graph, keep_outputs=kept, names=done)
        yield name, graph
    graph = with_contracts(graph, recipe, plan)
    yield "contract", graph
    done = []
    for name in (name for name in plan.passes if name in optimize.PASSES):
        done.append(name)
        graph = optimize.optimize(graph, done)
        yield name, graph
    for one in target_passes(plan):
        graph = one(graph)
        yield one.__name__, graph


def _new_report(before: Graph, after: Graph, name: str) -> PassReport:
    """Return the report of ``name`` among those that ``after`` has and ``before`` has not."""
    new = [report for report in after.reports[len(before.reports) :] if report.name == name]
    return new[-1] if new else PassReport(name)


def _effect(name: str, report: PassReport, before: GraphFigures, after: GraphFigures) -> PassEffect:
    did = Counter(one.detail for one in report.fired)
    return PassEffect(
        name=name,
        fired=len(report.fired),
        did=dict(did.most_common()),
        skipped=dict(Counter(one.reason for one in report.skipped).most_common()),
        before=before,
        after=after,
    )


def _figures(graph: Graph, plan: ExportPlan) -> GraphFigures:
    size = 2 if plan.precision is Precision.FP16 else 4
    cost = graph_cost(graph)
    return GraphFigures(
        operations=sum(one.count for one in cost.operations),
        transposes=sum(1 for _ in calls(graph.module.graph, *_TRANSPOSES)),
        macs=cost.macs[Convention.MACS],
        weight_bytes=sum(size * one.numel() for one in weights(graph).values() if one.is_floating_point()),
    )
