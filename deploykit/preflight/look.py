"""Preflight: a network is captured, simplified and lowered for each target, and looked at; nothing is converted."""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

from torch import fx

from deploykit.chatter import contained
from deploykit.graph import optimize
from deploykit.graph.graph import Graph, sources
from deploykit.graph.operations import operation_name
from deploykit.graph.simplify import PASSES
from deploykit.lowering import ExportOptions, lower, options_for, plan_export, target_passes
from deploykit.network import LoadedNetwork
from deploykit.pipeline import lint, simplified
from deploykit.preflight.neural_engine import RESIDENCY_NOTE, WHOLE_PROGRAM
from deploykit.preflight.probe import Parts, probe
from deploykit.preflight.records import Finding, Preflight, TargetFindings, Verdict
from deploykit.preflight.rule import LEFT, REFUSED, Rule
from deploykit.preflight.rules import ADVICE, MANY, REFUSALS
from deploykit.records import ExportPlan, PassReport, SkippedTarget
from deploykit.targets.coverage import Coverage
from deploykit.targets.table import part, require
from deploykit.vocab import Target

# An operation that a converter takes apart into at least so many is worth a person's attention.
MANY_PARTS = 8
_PASSES_PAGE = "docs/passes.md"


def preflight(
    network: LoadedNetwork,
    targets: Sequence[Target],
    options: ExportOptions,
    *,
    skipped: Sequence[SkippedTarget] = (),
    step: Callable[[str], None] | None = None,
) -> Preflight:
    """Return what an export of ``network`` to ``targets`` would meet, found without converting or writing anything.

    Raises:
        TargetError: a target is not installed, or cannot do what ``options`` ask.
        VerificationError: the network does not simplify as its recipe expects.
    """
    say = step or (lambda message: None)
    recipe = network.recipe
    plans = {}
    for target in targets:
        require(target)
        plans[target] = plan_export(recipe, target, options_for(target, options, alone=len(targets) == 1))
    say("capturing and simplifying the network")
    training, deploy = simplified(network)
    found = []
    optimized: tuple[PassReport, ...] = ()
    for target, plan in plans.items():
        say(f"{target}: lowering")
        graph = lower(training, recipe, plan)
        optimized = optimized or tuple(report for report in graph.reports if report.name in optimize.PASSES)
        say(f"{target}: asking the converter what it takes")
        with contained():
            coverage: Coverage = part(target, "coverage").read()
        found.append(look(graph, plan, coverage))
    named = {name: f"deploykit.graph.passes.{name}" for name in (*PASSES, *optimize.PASSES)}
    common = tuple(_rewritten((*deploy.reports, *optimized), named))
    return Preflight(recipe.name, network.checkpoint_sha256, common, tuple(found), tuple(skipped), network.notes)


def look(graph: Graph, plan: ExportPlan, coverage: Coverage) -> TargetFindings:
    """Return what the target of ``plan`` makes of ``graph``, lowered for it, by ``coverage`` and the rules."""
    calls = [node for node in graph.module.graph.nodes if node.op == "call_function"]
    nodes = [node for node in calls if node.target is not operator.getitem]
    parts = probe(graph, coverage)
    groups: dict[tuple[Verdict, str, str], list[fx.Node]] = {}
    made: dict[tuple[Verdict, str, str], Finding] = {}

    def note(node: fx.Node, finding: Finding) -> None:
        key = (finding.verdict, finding.construct, finding.reason)
        groups.setdefault(key, []).append(node)
        made[key] = finding

    for node in nodes:
        note(node, _verdict(node, plan, parts.get(node.name, Parts(1, ())), coverage))
        for rule in _that_hold(ADVICE, node, plan):
            note(node, _by_rule(rule))
    findings = [_gathered(made[key], groups[key]) for key in made]
    findings += [_whole(rule, len(nodes)) for rule in WHOLE_PROGRAM if _applies(rule, plan)]
    findings += _returned_twice(graph, plan)
    findings += _rewritten(graph.reports, {one.__name__: one.__module__ for one in target_passes(plan)})
    order = list(Verdict)
    findings.sort(key=lambda one: (-order.index(one.verdict), -one.places, one.construct))
    notes = lint(graph, plan)
    if any(one.verdict is Verdict.ADVISORY for one in findings) and plan.target is Target.COREML:
        notes = (*notes, RESIDENCY_NOTE)
    return TargetFindings(plan.target, plan.precision, coverage.converter, len(nodes), tuple(findings), notes)


def _verdict(node: fx.Node, plan: ExportPlan, parts: Parts, coverage: Coverage) -> Finding:
    """Return the one verdict on ``node`` that decides whether and how it is exported."""
    name = operation_name(node)
    for rule in _that_hold(REFUSALS, node, plan):
        return _by_rule(rule)
    if parts.missing:
        reason = f"{coverage.converter} does not take {', '.join(parts.missing)}"
        return Finding(name, Verdict.REFUSED, (), 0, reason, REFUSED, coverage.converter)
    for rule in _that_hold(MANY, node, plan):
        return _by_rule(rule)
    if parts.operations >= MANY_PARTS:
        reason = f"{coverage.converter} takes it apart into {parts.operations} operations"
        return Finding(name, Verdict.MANY, (), 0, reason, LEFT, coverage.converter)
    return Finding(name, Verdict.OK, (), 0, f"{coverage.converter} takes it", LEFT, coverage.converter)


def _that_hold(rules: Iterable[Rule], node: fx.Node, plan: ExportPlan) -> list[Rule]:
    name = operation_name(node)
    return [
        rule
        for rule in rules
        if _applies(rule, plan) and (not rule.operations or name in rule.operations) and rule.holds(node)
    ]


def _applies(rule: Rule, plan: ExportPlan) -> bool:
    return rule.target is plan.target and plan.precision in rule.precisions


def _by_rule(rule: Rule) -> Finding:
    return Finding(rule.construct, rule.verdict, (), 0, rule.reason, rule.done, rule.source)


def _gathered(finding: Finding, nodes: Sequence[fx.Node]) -> Finding:
    modules = dict.fromkeys(module for node in nodes for module in sources(node))
    return Finding(
        finding.construct, finding.verdict, tuple(modules), len(nodes), finding.reason, finding.done, finding.source
    )


def _whole(rule: Rule, operations: int) -> Finding:
    return Finding(rule.construct, rule.verdict, (), operations, rule.reason, rule.done, rule.source)


def _returned_twice(graph: Graph, plan: ExportPlan) -> list[Finding]:
    """Return the refusal of Core ML where one value is returned under two names."""
    results = list(graph.module.graph.output_node().args[0])  # type: ignore[arg-type]
    twice = [name for name, value in zip(graph.outputs, results, strict=True) if results.count(value) > 1]
    if plan.target is not Target.COREML or not twice:
        return []
    reason = f"a Core ML package cannot return the same values under two names: {', '.join(twice)}"
    return [Finding("equal outputs", Verdict.REFUSED, (), len(twice), reason, REFUSED, "docs/support.md")]


def _rewritten(reports: Sequence[PassReport], modules_of: Mapping[str, str]) -> list[Finding]:
    """Return one finding for each pass that rewrote something, by name → module, with what it did in its own words."""
    found = []
    for report in reports:
        if report.name not in modules_of or not report.fired:
            continue
        text = (importlib.import_module(modules_of[report.name]).__doc__ or "").strip()
        details = list(dict.fromkeys(fired.detail for fired in report.fired))
        shown = "; ".join(details[:2]) + (f"; and {len(details) - 2} more" if len(details) > 2 else "")
        modules = dict.fromkeys(module for fired in report.fired for module in fired.modules)
        found.append(
            Finding(
                report.name.replace("_", " "),
                Verdict.REWRITTEN,
                tuple(modules),
                len(report.fired),
                text.splitlines()[0].rstrip(".").replace("``", ""),
                f"pass {report.name}: {shown}",
                _PASSES_PAGE,
            )
        )
    return found
