"""What is publicly known to leave the Neural Engine in a Core ML file's network: advice."""

from __future__ import annotations

from collections.abc import Callable

from deploykit.chatter import contained
from deploykit.errors import DeploykitError
from deploykit.gate_measuring.subjects import Gated
from deploykit.gate_records import Measurement
from deploykit.lowering import ExportOptions
from deploykit.preflight.look import preflight
from deploykit.preflight.records import Verdict
from deploykit.verification.reference import find_network
from deploykit.vocab import Target


def neural_engine_advice(gated: Gated, say: Callable[[str], None]) -> tuple[tuple[str, ...], Measurement | None]:
    """Return the advice on a Core ML artifact, and how many operations it is about; None for another format.

    It is that of the network as the artifact's precision and kinds export it today.
    """
    plan = gated.artifact.plan
    if plan.target is not Target.COREML:
        return (), None
    say(f"asking what is known of the Neural Engine: {gated.subject.name}")
    options = ExportOptions(
        precision=plan.precision,
        input_kind=plan.input_kind,
        output_kind=plan.output_kind,
        minimum_os=plan.minimum_os,
        calibration=plan.quantization.calibration if plan.quantization else None,
    )
    try:
        with contained():
            network = find_network(gated.recipe, gated.artifact, None, None)
            found = preflight(network, [Target.COREML], options).targets[0]
    except DeploykitError as error:
        return (), Measurement(None, f"{error.message} {error.found or ''}".strip())
    advice = [one for one in found.findings if one.verdict is Verdict.ADVISORY]
    texts = tuple(f"{one.construct}, {one.places} operations: {one.reason} ({one.source})" for one in advice)
    return texts, Measurement(sum(one.places for one in advice))
