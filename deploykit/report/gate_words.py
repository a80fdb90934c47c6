"""The figures of a finding in words: the same in every form of a gate's report."""

from __future__ import annotations

from collections.abc import Iterator

from deploykit.gate_records import Finding, GateReport, GateVerdict

_FIRST = 3
_WHOLE = ("bytes", "operations", "transposes", "multiply-accumulates", "files changed")


def amount(value: float | None, unit: str) -> str:
    """Return ``value`` with its unit, seconds as milliseconds; a dash for None."""
    if value is None:
        return "-"
    name = unit.removesuffix(" (at least)")
    if unit == "s":
        return f"{1000 * value:z.3f} ms"
    if name in _WHOLE:
        return f"{value:z,.0f} {name}"
    if unit in ("points", "times the baseline"):
        return f"{value:z.3f} {name}"
    return f"{value:z.4g} {name}"


def bound(finding: Finding) -> str:
    """Return the limit in words."""
    if finding.limit is None:
        return "-"
    side = "at least" if finding.unit.endswith("(at least)") else "at most"
    return f"{side} {amount(finding.limit, finding.unit)}"


def beyond(finding: Finding) -> str:
    """Return by how much the limit is exceeded, or how much room is left."""
    if finding.excess is None:
        return "-"
    words = "too much" if finding.excess > 0 else "left"
    if finding.unit.endswith("(at least)") and finding.excess > 0:
        words = "too little"
    return f"{amount(abs(finding.excess), finding.unit)} {words}"


def state(finding: Finding) -> str:
    """Return the verdict, with what fails although it is no failure of a limit, and advice as such."""
    if finding.advice:
        return "advice"
    extra = finding.fails and finding.verdict is not GateVerdict.FAIL
    return f"{finding.verdict}, fails" if extra else finding.verdict.value


def verdict_line(report: GateReport) -> str:
    """Return one sentence that says how the gate ended."""
    counts = [
        f"{report.count(verdict)} {word}"
        for verdict, word in (
            (GateVerdict.PASS, "passed"),
            (GateVerdict.FAIL, "failed"),
            (GateVerdict.INCONCLUSIVE, "inconclusive"),
            (GateVerdict.SKIPPED, "skipped"),
        )
        if report.count(verdict) or verdict is GateVerdict.PASS
    ]
    strict = ", strict: what is skipped fails" if report.strict else ""
    return f"The gate {'passed' if report.passed else 'failed'}: {', '.join(counts)}{strict}."


def failure_line(report: GateReport) -> str:
    """Return the sentence of a gate that failed, with the figures of the first findings that made it."""
    failing = [one for one in report.findings if one.fails]
    words = [f"{one.rule} of {one.subject} {_figures(one)}" for one in failing[:_FIRST]]
    more = f", and {len(failing) - _FIRST} more" if len(failing) > _FIRST else ""
    return f"{verdict_line(report)} {'; '.join(words)}{more}"


def failures(report: GateReport) -> Iterator[str]:
    """Yield a line on each finding that fails the gate, and one with the command that measures it again."""
    for one in worst_first(report):
        if one.fails:
            yield f"{one.rule} of {one.subject}: {_figures(one)}: {one.reason}"
            if one.command:
                yield f"  again: {one.command}"


def _figures(finding: Finding) -> str:
    if finding.measured is None:
        return state(finding)
    limit = "" if finding.limit is None else f" ({bound(finding)}; {beyond(finding)})"
    return f"{amount(finding.measured, finding.unit)}{limit}"


def worst_first(report: GateReport) -> tuple[Finding, ...]:
    """Return the findings, those that fail first, then what was not judged, advice last; otherwise in order."""
    order = {GateVerdict.FAIL: 0, GateVerdict.INCONCLUSIVE: 1, GateVerdict.SKIPPED: 2, GateVerdict.PASS: 3}
    return tuple(sorted(report.findings, key=lambda one: (not one.fails, one.advice, order[one.verdict])))
