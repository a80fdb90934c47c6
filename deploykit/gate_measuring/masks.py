"""Equivalence with the checkpoint, and what a file's masks lose against the checkpoint's."""

from __future__ import annotations

from collections.abc import Sequence

from deploykit.chatter import contained
from deploykit.errors import DeploykitError
from deploykit.evaluation.evaluate import Options, evaluate
from deploykit.gate_measuring.known import lost
from deploykit.gate_measuring.subjects import Gated
from deploykit.gate_records import MASKS, Agreement, Measure, Measurement
from deploykit.records import Comparison
from deploykit.verification import verify
from deploykit.verification.records import ArtifactVerification
from deploykit.verification.reference import find_network

_BOUNDS = ("max_abs_error", "relative_l2", "mask_agreement", "wrong_pixels")


def agreements(
    gated: Gated, known: ArtifactVerification | None
) -> tuple[tuple[Agreement, ...] | None, tuple[str, ...], str]:
    """Return how the file agrees with its checkpoint, what else is broken, and why where it could not be verified.

    It is verified now where nothing is ``known``.
    """
    try:
        with contained():
            found = known or verify(gated.artifact.path, recipe=gated.recipe)
    except DeploykitError as error:
        return None, (), f"{error.message} {error.found or ''}".strip()
    rows: list[Agreement] = []
    covered: set[str] = set()
    for run in found.runtimes:
        for output in run.outputs:
            own = _bounded(output.comparison, run.runtime)
            rows += own
            covered |= set(output.comparison.failures) if own else set()
    broken = [one for one in found.findings if not any(one.endswith(failure) for failure in covered)]
    return tuple(rows), tuple(broken), ""


def _bounded(comparison: Comparison, runtime: str) -> list[Agreement]:
    tolerance = comparison.tolerance
    rows = []
    for bound in _BOUNDS:
        limit, measured = getattr(tolerance, bound), getattr(comparison, bound)
        if limit is not None and measured is not None:
            at_least = bound == "mask_agreement"
            name = f"{comparison.output}, {runtime}"
            rows.append(Agreement(name, bound, float(measured), float(limit), tolerance.reason, at_least))
    return rows


def mask_losses(gated: Sequence[Gated], *, samples: int, clips: int) -> dict[str, dict[Measure, Measurement]]:
    """Return, by name, the points that each file loses against its checkpoint on the same synthetic portraits.

    Files of one checkpoint and size share one run; where that fails, each is tried alone, and one that fails says why.
    """
    groups: dict[tuple[object, ...], list[Gated]] = {}
    for one in gated:
        artifact = one.artifact
        key = (one.recipe.name, artifact.plan.input_shapes, artifact.checkpoint_sha256)
        groups.setdefault(key, []).append(one)
    found: dict[str, dict[Measure, Measurement]] = {}
    for group in groups.values():
        found |= _losses(group, Options(samples=samples, clips=clips))
    return found


def _losses(group: Sequence[Gated], options: Options) -> dict[str, dict[Measure, Measurement]]:
    try:
        with contained():
            network = find_network(group[0].recipe, group[0].artifact, None, None)
            run = evaluate(network, *(one.artifact for one in group), options=options)
    except DeploykitError as error:
        if len(group) > 1:
            return {name: row for one in group for name, row in _losses([one], options).items()}
        why = Measurement(None, f"{error.message} {error.found or ''}".strip())
        return {group[0].subject.name: dict.fromkeys(MASKS, why)}
    files = run.evaluations[1:]
    return {
        one.subject.name: {measure: lost(evaluation, measure) for measure in MASKS}
        for one, evaluation in zip(group, files, strict=True)
    }
