"""The verdict on everything in a folder: one sentence and its reasons. What was not judged is never a pass."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploykit.gate.rules import EQUIVALENCE, HASH
from deploykit.gate_records import GateReport, GateVerdict
from deploykit.latency.subjects import timed_elsewhere
from deploykit.recipe import bundled_recipes
from deploykit.report_page.records import Dossier, Left, Matched, Network, Reason, Standing, Verdict
from deploykit.report_page.runs import Run, State, Step
from deploykit.report_page.words import place

MIOU = "two_class_miou"
_ORDER = (Standing.FAIL, Standing.OPEN, Standing.PASS)


def judge(matched: Matched, folder: Path) -> Verdict:
    """Return the verdict on ``matched``; commands write into ``folder``.

    It fails where anything failed: a manifest or file that is not as it was exported, a comparison, a verification, a
    certificate, a finding of the gate, a stage of the pipeline. It passes where every artifact was verified, evaluated,
    measured and judged by a gate against a budget, and nothing was skipped, inconclusive or unreadable; a stale record
    counts for nothing. Latency that this machine can never measure is named, and is no reason: where a budget asks for
    it, the gate's finding is one. Everything else is open.
    """
    reasons = tuple(sorted(dict.fromkeys(_reasons(matched, folder)), key=lambda one: _ORDER.index(one.standing)))
    worst = reasons[0].standing if reasons else Standing.PASS
    notes = tuple(_notes(matched))
    return Verdict(worst, _sentence(worst, reasons, notes, len(matched.dossiers)), reasons, notes)


def of_dossier(dossier: Dossier) -> Standing:
    """Return whether the file is verified: it failed, it passed, or nothing says so."""
    reasons = tuple(_integrity(dossier))
    if reasons:
        return Standing.FAIL
    return Standing.PASS if dossier.artifact.comparisons else Standing.OPEN


def _notes(matched: Matched) -> Iterator[str]:
    """Yield which files have no latency since this machine can never measure it, and why."""
    found: dict[str, list[Dossier]] = {}
    for one in _untimed(matched):
        found.setdefault(timed_elsewhere(one.artifact.plan.target), []).append(one)
    for reason, dossiers in found.items():
        if reason:
            yield f"The latency of {_named(dossiers)} is not measured here: {reason}."


def _sentence(worst: Standing, reasons: tuple[Reason, ...], notes: tuple[str, ...], count: int) -> str:
    files = "1 file" if count == 1 else f"{count} files"
    if worst is Standing.PASS:
        agree = "agrees with its checkpoint" if count == 1 else "agree with their checkpoints"
        return " ".join([f"Ready: {files} {agree} within tolerance, and the gate passed.", *notes])
    own = [one for one in reasons if one.standing is worst]
    first = own[0].text
    more = f", and {len(own) - 1} more" if len(own) > 1 else ""
    if worst is Standing.FAIL:
        return f"Not ready: {first}{more}."
    return f"Open: nothing failed in {files}, but {first}{more}."


def _reasons(matched: Matched, folder: Path) -> Iterator[Reason]:
    for one in matched.damaged:
        yield Reason(Standing.FAIL, f"the manifest {one.path} cannot be read ({one.reason})")
    for record in matched.of_kind("pipeline"):
        yield from _of_pipeline(record.body, {one.artifact.recipe for one in matched.dossiers})
    for network in matched.networks:
        yield from _of_network(network, folder)
        for dossier in network.dossiers:
            yield from _of_dossier(dossier, folder)
    yield from _unmeasured(matched, folder)
    for record in matched.of_kind("verify-manifest"):
        yield from (
            Reason(Standing.FAIL, f"{record.body.artifact}: the link {link.name} of its chain fails ({link.detail})")
            for link in record.body.links
            if link.verdict.value == "FAIL"
        )
    for record in matched.of_kind("gate"):
        yield from _of_the_gate_itself(record.body)
    for skipped in matched.unmeasured:
        yield Reason(Standing.OPEN, f"{skipped.name} was not measured ({skipped.reason})")
    yield from (
        Reason(Standing.OPEN, f"{one.path} is {one.why} ({one.reason})")
        for one in matched.left_out
        if one.why in (Left.UNREADABLE, Left.CHANGED)
    )


def _of_network(network: Network, folder: Path) -> Iterator[Reason]:
    made = network.verification
    if made is None:
        text = f"folding and merging of {network.recipe} was not verified"
        yield Reason(Standing.OPEN, text, _command("verify-reparam", [_recipe(network)], folder, network.recipe))
    elif not made.passed:
        failed = [*made.findings, *(text for _, one in made.comparisons for text in one.failures)]
        yield Reason(Standing.FAIL, f"folding and merging of {network.recipe} fails ({'; '.join(failed)[:200]})")
    unscored = [one for one in _sound(network.dossiers) if miou(one) is None]
    if unscored:
        files = [_recipe(network), *(place(one.artifact.path) for one in unscored)]
        text = f"mIoU of {_named(unscored, network.recipe)} is not measured"
        yield Reason(Standing.OPEN, text, _command("evaluate", files, folder, network.recipe))


def _of_dossier(dossier: Dossier, folder: Path) -> Iterator[Reason]:
    yield from _integrity(dossier)
    if not dossier.entry.changed and not dossier.artifact.comparisons:
        file = [place(dossier.artifact.path)]
        name = dossier.entry.manifest.parent.name
        yield Reason(Standing.OPEN, f"{dossier.name} was not verified", _command("verify", file, folder, name))
    yield from _of_the_gate(dossier)


def _unmeasured(matched: Matched, folder: Path) -> Iterator[Reason]:
    """Yield what was measured or judged of no record here, with one command for all such files."""
    ungated = [one for one in _sound(matched.dossiers) if not one.gated]
    if ungated:
        text = f"no gate judged {_named(ungated)}"
        yield Reason(Standing.OPEN, text, _command("gate", [place(folder)], folder))
    unbounded = [one for one in _sound(matched.dossiers) if one.gated and not _bounded(one)]
    if unbounded:
        text = f"no budget on size, latency or accuracy is set for {_named(unbounded)}"
        hint = f"{text}: write [[budgets]] into deploykit.toml or the recipe, then run the gate again"
        yield Reason(Standing.OPEN, hint, _command("gate", [place(folder)], folder))
    untimed = [one for one in _untimed(matched) if not timed_elsewhere(one.artifact.plan.target)]
    if untimed:
        files = [place(one.artifact.path) for one in untimed]
        yield Reason(Standing.OPEN, f"latency of {_named(untimed)} is not measured", _command("bench", files, folder))


def _untimed(matched: Matched) -> list[Dossier]:
    return [one for one in _sound(matched.dossiers) if not one.latencies]


def _bounded(dossier: Dossier) -> bool:
    """Return whether the gate held the file to anything besides its own hash and its checkpoint's outputs."""
    return any(not one.advice and one.rule not in (HASH, EQUIVALENCE) for one in dossier.findings)


def _of_pipeline(run: Run, made: set[str]) -> Iterator[Reason]:
    """Yield what a run left undone; ``made`` are the recipes of which files are here. Skipped stages are no reason."""
    # A report is no condition of itself.
    stages = [one for one in run.stages if one.kind != "report"]
    for one in stages:
        if one.outcome is State.FAILED:
            nothing = ", no file was made" if one.recipe and one.recipe not in made else ""
            why = f" ({one.why[:200]})" if one.why else ""
            yield Reason(Standing.FAIL, f"{_stage(one)} failed{nothing}{why}")
    for state, words in ((State.NOT_RUN, "not run"), (State.INTERRUPTED, "interrupted")):
        for recipe in dict.fromkeys(one.recipe for one in stages if one.outcome is state):
            own = [one for one in stages if one.outcome is state and one.recipe == recipe]
            more = f" and {len(own) - 1} more" if len(own) > 1 else ""
            why = f" ({own[0].why[:200]})" if own[0].why else ""
            yield Reason(
                Standing.OPEN, f"{_stage(own[0])}{more} {'were' if more else 'was'} {words}{why}", "deploykit pipeline"
            )


def _stage(one: Step) -> str:
    return f"{one.recipe}: {one.name}" if one.recipe else f"the stage {one.name}"


def _sound(dossiers: Sequence[Dossier]) -> list[Dossier]:
    """Return those that are as they were exported: of the others nothing is to be measured."""
    return [one for one in dossiers if not one.entry.changed]


def _named(dossiers: Sequence[Dossier], recipe: str = "") -> str:
    of_network = f" of {recipe}" if recipe else ""
    return dossiers[0].name if len(dossiers) == 1 else f"{len(dossiers)} files{of_network}"


def _recipe(network: Network) -> str:
    return network.recipe if network.recipe in bundled_recipes() else f"{network.recipe}.toml"


def _command(kind: str, arguments: Sequence[str], folder: Path, name: str = "") -> str:
    """Return the command line for a POSIX shell that puts the record where the next report finds it."""
    # What the pipeline wrote is not to be written over: it would count as changed.
    name = name or ("again" if (folder / f".pipeline/results/{kind}.json").exists() else "")
    record = folder / (f"{kind}-{name}.json" if name else f"{kind}.json")
    return f"deploykit {kind} {shlex.join(arguments)} --json > {shlex.quote(place(record))}"


def _integrity(dossier: Dossier) -> Iterator[Reason]:
    """Yield what fails about the file itself."""
    name, entry = dossier.name, dossier.entry
    if entry.changed:
        yield Reason(
            Standing.FAIL,
            f"{name} is not the file that was exported ({_differs(dossier)})",
            _again(name),
        )
    if entry.broken:
        yield Reason(Standing.FAIL, f"the manifest of {name} was changed ({', '.join(entry.broken[:3])})", _again(name))
    if entry.certificate_faults:
        yield Reason(Standing.FAIL, f"the certificate of {name} does not hold ({entry.certificate_faults[0]})")
    for one in entry.artifact.comparisons:
        if not one.passed:
            yield Reason(Standing.FAIL, f"{name} differs from its checkpoint at {one.output} ({one.failures[0]})")
    for verification in dossier.verifications:
        for finding in verification.findings:
            yield Reason(Standing.FAIL, f"the verification of {name} fails ({finding})")


def _differs(dossier: Dossier) -> str:
    """Return which files are not those of the manifest, and how."""
    missing = dossier.entry.missing
    changed = [one for one in dossier.entry.changed if one not in missing]
    parts = [f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"] if missing else []
    return "; ".join([*parts, *([f"{', '.join(changed)} changed"] if changed else [])])


def _again(name: str) -> str:
    return f"deploykit export {shlex.quote(name.split(maxsplit=1)[0])}"


def _of_the_gate(dossier: Dossier) -> Iterator[Reason]:
    for one in dossier.findings:
        if one.advice or (one.verdict is GateVerdict.PASS and not one.fails):
            continue
        standing = Standing.FAIL if one.fails or one.verdict is GateVerdict.FAIL else Standing.OPEN
        said = "fails" if standing is Standing.FAIL else f"is {one.verdict}"
        yield Reason(standing, f"the gate's rule {one.rule} {said} for {dossier.name} ({one.reason})", one.command)


def _of_the_gate_itself(report: GateReport) -> Iterator[Reason]:
    """Yield findings on no artifact of this folder, such as a budget that nothing falls under."""
    known = {one.name for one in report.subjects}
    for one in report.findings:
        if one.subject in known or one.advice or (one.verdict is GateVerdict.PASS and not one.fails):
            continue
        standing = Standing.FAIL if one.fails else Standing.OPEN
        yield Reason(
            standing, f"the gate's rule {one.rule} is {one.verdict} for {one.subject} ({one.reason})", one.command
        )


def miou(dossier: Dossier) -> float | None:
    """Return the mean IoU of portrait and background, 0 to 1; None where it was not measured."""
    for scored in dossier.scores:
        for summary in scored.evaluation.summaries:
            if summary.metric == MIOU and summary.estimate is not None:
                return summary.estimate.value
    return None
