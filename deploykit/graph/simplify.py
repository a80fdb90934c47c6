"""Simplify: the exact, target-independent passes, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx

from deploykit.graph.graph import Graph, Recorder, tidy
from deploykit.graph.passes import drop_unused_outputs, fold_batch_norm, merge_branches, remove_no_ops
from deploykit.records import PassReport

PASSES = (remove_no_ops.NAME, drop_unused_outputs.NAME, fold_batch_norm.NAME, merge_branches.NAME)


def simplify(graph: Graph, *, keep_outputs: Sequence[str] | None, names: Sequence[str] = PASSES) -> Graph:
    """Return ``graph`` after those of ``PASSES`` in ``names``, one report each; nothing is left that they match.

    The weights stay float64. ``keep_outputs`` names the outputs to keep, all of them for None. Folding and
    merging repeat until neither finds anything, since a BatchNorm on a sum folds once the sum has merged. A
    second run changes nothing.

    Raises:
        RecipeError: ``keep_outputs`` names something that is not an output.
    """
    copied = graph.copy()
    no_ops, outputs = Recorder(remove_no_ops.NAME), Recorder(drop_unused_outputs.NAME)
    remove_no_ops.rewrite(copied.module, no_ops)
    kept = graph.outputs if keep_outputs is None else keep_outputs
    copied = drop_unused_outputs.rewrite(copied, kept, outputs)
    rounds = [_fold_and_merge(copied.module, names)]
    while any(report.fired for report in rounds[-1]):
        rounds.append(_fold_and_merge(copied.module, names))
    tidy(copied.module)
    repeated = (_joined(reports) for reports in zip(*rounds, strict=True))
    return replace(copied, reports=(*copied.reports, no_ops.report(), outputs.report(), *repeated))


def _fold_and_merge(module: fx.GraphModule, names: Sequence[str]) -> tuple[PassReport, ...]:
    chosen = [one for one in (fold_batch_norm, merge_branches) if one.NAME in names]
    recorders = [Recorder(one.NAME) for one in chosen]
    for one, recorder in zip(chosen, recorders, strict=True):
        one.rewrite(module, recorder)
    return tuple(recorder.report() for recorder in recorders)


def _joined(reports: Sequence[PassReport]) -> PassReport:
    """Return one report: everything that fired in any round, and what the last round left alone."""
    fired = tuple(fired for report in reports for fired in report.fired)
    return PassReport(reports[0].name, fired, reports[-1].skipped)
