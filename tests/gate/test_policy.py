"""Which verdicts fail a run."""

from __future__ import annotations

import pytest

from deploykit.gate.policy import decided
from deploykit.gate_records import Finding, GateVerdict, Inconclusive

PASS, FAIL, INCONCLUSIVE, SKIPPED = GateVerdict.PASS, GateVerdict.FAIL, GateVerdict.INCONCLUSIVE, GateVerdict.SKIPPED


@pytest.mark.parametrize(
    ("verdict", "strict", "inconclusive", "passed"),
    [
        (PASS, True, Inconclusive.FAIL, True),
        (FAIL, False, Inconclusive.WARN, False),
        (SKIPPED, False, Inconclusive.FAIL, True),
        (SKIPPED, True, Inconclusive.WARN, False),
        (INCONCLUSIVE, True, Inconclusive.WARN, True),
        (INCONCLUSIVE, True, Inconclusive.RETRY, True),
        (INCONCLUSIVE, False, Inconclusive.FAIL, False),
    ],
)
def test_the_policy_says_what_fails(
    verdict: GateVerdict, strict: bool, inconclusive: Inconclusive, passed: bool
) -> None:
    report = decided([Finding("bytes", "a", verdict, "")], strict=strict, inconclusive=inconclusive)
    assert report.passed is passed
    assert report.findings[0].fails is not passed
    assert report.count(verdict) == 1


def test_advice_fails_nothing() -> None:
    advice = Finding("neural engine", "a", FAIL, "", advice=True)
    assert decided([advice], strict=True, inconclusive=Inconclusive.FAIL).passed
