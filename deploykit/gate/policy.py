"""What a run makes of its findings: which verdicts fail the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deploykit.gate_records import Finding, GateReport, GateVerdict, Inconclusive, Subject


def decided(
    findings: Sequence[Finding],
    *,
    strict: bool,
    inconclusive: Inconclusive,
    baseline: str | None = None,
    notes: Sequence[str] = (),
    subjects: Sequence[Subject] = (),
) -> GateReport:
    """Return ``findings`` on ``subjects`` with what fails the gate.

    A failure does. What was skipped does under ``strict``: nothing that should have been judged may be left out in
    CI. What noise left open does where the policy says so. Advice never does.
    """
    failing = {GateVerdict.FAIL}
    if strict:
        failing.add(GateVerdict.SKIPPED)
    if inconclusive is Inconclusive.FAIL:
        failing.add(GateVerdict.INCONCLUSIVE)
    judged = tuple(replace(one, fails=not one.advice and one.verdict in failing) for one in findings)
    passed = not any(one.fails for one in judged)
    return GateReport(passed, judged, strict, inconclusive, baseline, tuple(notes), tuple(subjects))
