"""Run an exported file again and see whether its recorded comparisons come out."""

from __future__ import annotations

from deploykit.chatter import contained
from deploykit.errors import DeploykitError
from deploykit.network import LoadedNetwork
from deploykit.pipeline import compare_runtime
from deploykit.provenance.records import Link, Verdict
from deploykit.records import Artifact, Comparison
from deploykit.targets.table import TARGETS, part
from deploykit.verify.reference import reference_outputs
from deploykit.verify.samples import draw_samples

NAME = "comparisons"
# Another processor or version of a runtime sums in another order: the largest error of many values moves little.
PLATFORM_FACTOR = 4.0
# Errors this far below the tolerance are noise of the platform.
PLATFORM_SHARE = 0.05


def rerun(artifact: Artifact, network: LoadedNetwork | None) -> Link:
    """Return whether the file gives again what its manifest records, against ``network``'s training form.

    On the same samples the largest error may differ by ``PLATFORM_FACTOR``, or by ``PLATFORM_SHARE`` of its
    tolerance. Photos that the export was given are not in the manifest: without them the tolerances alone decide.
    """
    if network is None:
        return Link(NAME, Verdict.SKIPPED, "there is no checkpoint to compare with")
    missing = TARGETS[artifact.plan.target].missing()
    if missing:
        return Link(NAME, Verdict.SKIPPED, f"not installed: {', '.join(missing)}")
    samples = draw_samples(network.recipe)
    try:
        reference = reference_outputs(network.module, network.recipe, samples)
        with contained(), part(artifact.plan.target, "runtime").open_artifact(artifact.path) as runtime:
            found = compare_runtime(runtime, network.recipe, artifact.plan, samples, reference)
            name = runtime.name
    except DeploykitError as error:
        return Link(NAME, Verdict.FAIL, "the file does not run", (f"{error.message} {error.found or ''}".strip(),))
    findings = [f"{one.output}: {failure}" for one in found for failure in one.failures]
    recorded = {one.output: one for one in artifact.comparisons}
    if recorded.keys() != {one.output for one in found}:
        findings.append(f"outputs {', '.join(recorded)} recorded, {', '.join(one.output for one in found)} found")
    same = all(one.samples == len(samples) for one in artifact.comparisons)
    for one in found:
        if same and one.output in recorded:
            findings += _not_reproduced(recorded[one.output], one)
    how = (
        f"recorded errors come out within a factor of {PLATFORM_FACTOR:g}"
        if same
        else "photos of the export are not at hand: within the tolerances on the other samples"
    )
    return Link(NAME, Verdict.FAIL if findings else Verdict.PASS, f"on {name}: {how}", tuple(findings))


def _not_reproduced(recorded: Comparison, found: Comparison) -> list[str]:
    problems = []
    for field in ("max_abs_error", "relative_l2"):
        before, now = getattr(recorded, field), getattr(found, field)
        slack = PLATFORM_SHARE * (getattr(found.tolerance, field) or 0.0)
        if not (now <= PLATFORM_FACTOR * before + slack and before <= PLATFORM_FACTOR * now + slack):
            problems.append(f"{recorded.output}: {field} {before:.3g} recorded, {now:.3g} found")
    if recorded.tolerance != found.tolerance:
        problems.append(f"{recorded.output}: tolerance is not the recipe's")
    if recorded.failures:
        problems.append(f"{recorded.output}: recorded as failed: {'; '.join(recorded.failures)}")
    return problems
