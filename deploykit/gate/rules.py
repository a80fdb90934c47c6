"""The rules of the gate: each takes records and returns findings, and measures nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from deploykit.gate.baseline import Baseline, BaselineArtifact
from deploykit.gate_records import (
    COUNTED,
    UNITS,
    Agreement,
    Budget,
    Finding,
    GateVerdict,
    Measure,
    Measurement,
    Observed,
)

HASH = "hash"
EQUIVALENCE = "equivalence"
BASELINE = "baseline"
LATENCY_GROWTH = "latency growth"
BUDGETS = "budgets"
ALL_ARTIFACTS = "(all artifacts)"
NO_BASELINE = "there is no baseline yet; make one with deploykit gate --update-baseline"
NEW = "the baseline does not have this artifact; add it with deploykit gate --update-baseline"


@dataclass(frozen=True)
class Context:
    """What the rules of one artifact look at. ``baseline`` is None where there is no such file."""

    observed: Observed
    budgets: tuple[Budget, ...]
    baseline: Baseline | None

    @property
    def before(self) -> BaselineArtifact | None:
        """What the baseline says of this artifact."""
        return None if self.baseline is None else self.baseline.of(self.observed.subject.name)

    @property
    def name(self) -> str:
        """The artifact's name."""
        return self.observed.subject.name

    def command(self, rule: str) -> str:
        """Return what measures again what ``rule`` judges."""
        return self.observed.commands.get(rule, "")


def applies(budget: Budget, observed: Observed) -> bool:
    """Return whether ``budget`` is for the artifact."""
    subject = observed.subject
    chosen = (
        (budget.targets, subject.target),
        (budget.precisions, subject.precision),
        (budget.recipes, subject.recipe),
    )
    return all(not selector or value in selector for selector, value in chosen)


def whole_file(context: Context) -> Iterator[Finding]:
    """Whether the files on disk are those that the manifest describes."""
    changed = context.observed.changed
    yield Finding(
        rule=HASH,
        subject=context.name,
        verdict=GateVerdict.FAIL if changed else GateVerdict.PASS,
        reason="changed, missing or added since the export: " + ", ".join(changed)
        if changed
        else "every byte and the content are those of the manifest",
        measured=float(len(changed)),
        limit=0.0,
        unit="files changed",
        excess=float(len(changed)),
        command=context.command(HASH),
    )


def equivalence(context: Context) -> Iterator[Finding]:
    """Whether the file still gives what the checkpoint gives, within the recipe's tolerances."""
    observed = context.observed
    if observed.changed:
        return
    command = context.command(EQUIVALENCE)
    if observed.agreements is None:
        yield Finding(EQUIVALENCE, context.name, GateVerdict.SKIPPED, observed.unverified, command=command)
        return
    for one in observed.agreements:
        yield _agreement(one, context.name, command)
    for broken in observed.broken:
        yield Finding(EQUIVALENCE, context.name, GateVerdict.FAIL, broken, command=command)


def _agreement(one: Agreement, name: str, command: str) -> Finding:
    excess = one.limit - one.measured if one.at_least else one.measured - one.limit
    # NaN is beyond every bound, so that what is asked is whether the bound is kept.
    kept = excess <= 0
    finite = math.isfinite(one.measured)
    return Finding(
        rule=EQUIVALENCE,
        subject=name,
        verdict=GateVerdict.PASS if kept else GateVerdict.FAIL,
        reason=f"{one.output}: {one.reason}" if finite else f"{one.output}: not a finite number; {one.reason}",
        measured=one.measured if finite else None,
        limit=one.limit,
        unit=f"{one.bound} (at least)" if one.at_least else one.bound,
        excess=excess if finite else None,
        command=command,
    )


def budgets(context: Context) -> Iterator[Finding]:
    """Each budget of the artifact: its limit, and its growth against the baseline."""
    if context.observed.changed:
        return
    for budget in context.budgets:
        if not applies(budget, context.observed):
            continue
        if budget.limit is not None:
            yield _within_limit(context, budget, budget.limit)
        if budget.max_growth is not None:
            grows = _latency_growth if budget.measure is Measure.LATENCY else _growth
            yield grows(context, budget, budget.max_growth)


def _within_limit(context: Context, budget: Budget, limit: float) -> Finding:
    measure = budget.measure
    measured = context.observed.figures.get(measure, Measurement(None, "it was not measured"))
    source = ""
    if measure is Measure.LATENCY and measured.device not in budget.devices:
        saved = [one for one in context.observed.recorded if one.device in budget.devices and one.value is not None]
        if saved:
            measured = max(saved, key=lambda one: one.value or 0.0)
            source = f"; {measured.reason}"
    open_finding = Finding(
        rule=measure.value,
        subject=context.name,
        verdict=GateVerdict.SKIPPED,
        reason=measured.reason,
        limit=limit,
        unit=UNITS[measure],
        command=f"deploykit results --machine {measured.device}" if source else context.command(measure),
    )
    if measured.value is None:
        return open_finding
    if budget.devices and measured.device not in budget.devices:
        where = f"for {', '.join(budget.devices)}, and this machine is {measured.device or 'not named'}"
        return _judged(open_finding, measured, GateVerdict.SKIPPED, f"the limit is {where}")
    low, high = measured.interval or (measured.value, measured.value)
    reason = budget.reason + source
    if high <= limit:
        return _judged(open_finding, measured, GateVerdict.PASS, reason)
    if low <= limit:
        reason = f"the interval {low:.6g} to {high:.6g} {UNITS[measure]} holds the limit; {reason}"
        return _judged(open_finding, measured, GateVerdict.INCONCLUSIVE, reason)
    return _judged(open_finding, measured, GateVerdict.FAIL, reason)


def _judged(finding: Finding, measured: Measurement, verdict: GateVerdict, reason: str) -> Finding:
    assert measured.value is not None
    assert finding.limit is not None
    finite = math.isfinite(measured.value)
    return Finding(
        rule=finding.rule,
        subject=finding.subject,
        verdict=verdict if finite else GateVerdict.FAIL,
        reason=reason if finite else f"not a finite number; {reason}",
        measured=measured.value if finite else None,
        limit=finding.limit,
        unit=finding.unit,
        excess=measured.value - finding.limit if finite else None,
        command=finding.command,
    )


def _growth(context: Context, budget: Budget, allowed: float) -> Finding:
    measure = budget.measure
    rule = f"{measure.value} growth"
    before, now = context.before, context.observed.figures.get(measure, Measurement(None, "it was not measured"))
    command = context.command(measure)
    if before is None or measure not in before.figures:
        reason = (
            NO_BASELINE if context.baseline is None else NEW if before is None else f"the baseline has no {measure}"
        )
        return Finding(rule, context.name, GateVerdict.SKIPPED, reason, unit=UNITS[measure], command=command)
    if now.value is None:
        return Finding(rule, context.name, GateVerdict.SKIPPED, now.reason, unit=UNITS[measure], command=command)
    was = before.figures[measure]
    limit = was * (1 + allowed)
    kept = now.value <= limit
    change = f"{now.value - was:+,.0f} on {was:,.0f} in the baseline"
    share = f" ({now.value / was - 1:+.2%})" if was else ""
    return Finding(
        rule=rule,
        subject=context.name,
        verdict=GateVerdict.PASS if kept else GateVerdict.FAIL,
        reason=f"{change}{share}, at most {allowed:+.2%} allowed; {budget.reason}",
        measured=now.value,
        limit=limit,
        unit=UNITS[measure],
        excess=now.value - limit,
        command=command,
    )


def _latency_growth(context: Context, budget: Budget, allowed: float) -> Finding:
    trial = context.observed.trials.get(allowed)
    rule, unit, command = LATENCY_GROWTH, "times the baseline", context.command(LATENCY_GROWTH)
    if trial is None:
        reason = NO_BASELINE if context.baseline is None else NEW if context.before is None else "it was not measured"
        return Finding(rule, context.name, GateVerdict.SKIPPED, reason, limit=1 + allowed, unit=unit, command=command)
    return Finding(
        rule=rule,
        subject=context.name,
        verdict=trial.verdict,
        reason=f"{trial.reason}; {budget.reason}",
        measured=trial.ratio,
        limit=1 + allowed,
        unit=unit,
        excess=None if trial.ratio is None else trial.ratio - (1 + allowed),
        command=command,
    )


def neural_engine(context: Context) -> Iterator[Finding]:
    """What is known to leave the Neural Engine, as advice; a budget judges how much of it is too much."""
    for text in context.observed.advice:
        yield Finding(
            rule="neural engine",
            subject=context.name,
            verdict=GateVerdict.PASS,
            reason=text,
            command=context.command(Measure.NEURAL_ENGINE),
            advice=True,
        )


Rule = Callable[[Context], Iterator[Finding]]
RULES: Mapping[str, Rule] = {
    HASH: whole_file,
    EQUIVALENCE: equivalence,
    BUDGETS: budgets,
    "neural engine": neural_engine,
}


def judge_artifact(context: Context) -> tuple[Finding, ...]:
    """Return the findings of every rule on one artifact, in the order of ``RULES``."""
    return tuple(finding for rule in RULES.values() for finding in rule(context))


def asleep(observed: Sequence[Observed], budgets: Sequence[Budget], baseline: Baseline | None) -> tuple[Finding, ...]:
    """Return a skipped finding for each budget and each artifact of the baseline that met nothing in the whole run.

    A gate that judges nothing would pass for ever.
    """
    found = [
        Finding(
            rule=BUDGETS,
            subject=ALL_ARTIFACTS,
            verdict=GateVerdict.SKIPPED,
            reason=f"no artifact is bounded by the budget of {budget.measure} in {budget.source} ({_selected(budget)})",
            unit=UNITS[budget.measure],
        )
        for budget in budgets
        if not any(applies(budget, one) for one in observed)
    ]
    if not budgets:
        found.append(
            Finding(
                BUDGETS,
                ALL_ARTIFACTS,
                GateVerdict.SKIPPED,
                "there is no budget: write [[budgets]] into the recipe or deploykit.toml",
            )
        )
    names = {one.subject.name for one in observed}
    for before in () if baseline is None else baseline.artifacts:
        if before.name not in names:
            reason = "it is in the baseline and not here; export it, or update the baseline with --update-baseline"
            found.append(Finding(BASELINE, before.name, GateVerdict.SKIPPED, reason))
    return tuple(found)


def _selected(budget: Budget) -> str:
    selectors = (budget.targets, budget.precisions, budget.recipes)
    return ", ".join(str(value) for selector in selectors for value in selector) or "for all artifacts"


def wanted(observed: Observed, budgets: Sequence[Budget]) -> frozenset[Measure]:
    """Return what has to be measured of an artifact for its budgets; what is counted always is."""
    return frozenset({*COUNTED, *(one.measure for one in budgets if applies(one, observed) and one.limit is not None)})
