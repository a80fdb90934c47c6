"""Records as the gate sees them: one artifact that keeps everything, and changes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deploykit.comparison_records import Estimate, Judgement, LatencyComparison, Side, Verdict
from deploykit.gate.baseline import Baseline, BaselineArtifact
from deploykit.gate.rules import Context, judge_artifact
from deploykit.gate_records import COUNTED, Agreement, Budget, Finding, Measure, Measurement, Observed, Subject
from deploykit.vocab import Precision, Target

NAME = "small onnx fp32 1x3x64x64"
REASON = "what this test allows"
COUNTS = {
    Measure.BYTES: 100_000,
    Measure.COMPRESSED_BYTES: 90_000,
    Measure.OPERATIONS: 40,
    Measure.TRANSPOSES: 2,
    Measure.MACS: 1_000_000,
}


def observed(figures: Mapping[Measure, float | Measurement | None] | None = None, **changes: Any) -> Observed:
    """An artifact with ``COUNTS``, equal to its checkpoint, with other figures and fields as given."""
    every = {**COUNTS, **(figures or {})}
    values: dict[str, Any] = {
        "subject": Subject(NAME, "small", Target.ONNX, Precision.FP32, "c" * 64, "small.onnx"),
        "figures": {
            measure: value if isinstance(value, Measurement) else Measurement(value) for measure, value in every.items()
        },
        "agreements": (Agreement("scores", "max_abs_error", 1e-5, 1e-4, REASON),),
        "commands": {rule: f"measure {rule}" for rule in ("hash", "equivalence", "latency growth", *Measure)},
    }
    return Observed(**{**values, **changes})


def baseline(**changes: Any) -> Baseline:
    """The baseline of that artifact."""
    values = {
        "name": NAME,
        "recipe": "small",
        "content_hash": "c" * 64,
        "recipe_sha256": "a" * 64,
        "checkpoint_sha256": "b" * 64,
        "plan": {"target": "onnx"},
        "figures": {measure: COUNTS[measure] for measure in COUNTED},
    }
    return Baseline((BaselineArtifact(**{**values, **changes}),))


def budget(measure: Measure, limit: float | None = None, **changes: Any) -> Budget:
    return Budget(measure, REASON, limit, **changes)


def found(artifact: Observed, *budgets: Budget, before: Baseline | None = None) -> dict[str, Finding]:
    """The findings on ``artifact`` by rule; each rule may say one thing only."""
    findings = judge_artifact(Context(artifact, budgets, before))
    assert len({one.rule for one in findings}) == len(findings)
    return {one.rule: one for one in findings}


def judgement(verdict: Verdict, ratio: float, half: float = 0.01, *, margin: float = 0.05) -> Judgement:
    """A judgement with an interval of ``ratio`` ± ``half`` and a noise floor of 1 %."""
    effect = Estimate(ratio, ratio - half, ratio + half)
    return Judgement(verdict, "as this test says", margin, 12, 0.99, effect, Estimate(1, 0.99, 1.01), 0.01, margin)


def comparison(judged: Judgement) -> LatencyComparison:
    """A comparison with that judgement and no samples: a stand-in at the boundary where time is measured."""
    return LatencyComparison(Side("a", "r", 0.01), Side("b", "r", 0.01), judged, 1, (), 0, 1.0, 1.0)
