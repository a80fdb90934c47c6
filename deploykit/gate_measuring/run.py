"""One run of the gate: what the budgets ask for is measured, and the rules judge it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deploykit.errors import ArtifactError, UsageError
from deploykit.gate.baseline import DEFAULT_FILE as BASELINE_FILE
from deploykit.gate.baseline import Baseline, accepted, read_baseline, updated
from deploykit.gate.policy import decided
from deploykit.gate.rules import EQUIVALENCE, HASH, Context, asleep, judge_artifact, wanted
from deploykit.gate_measuring.advice import neural_engine_advice
from deploykit.gate_measuring.baseline_files import DEFAULT_CACHE, keep
from deploykit.gate_measuring.counts import changed_since_export, count
from deploykit.gate_measuring.known import Known
from deploykit.gate_measuring.latency import Comparing, with_trials
from deploykit.gate_measuring.masks import agreements, mask_losses
from deploykit.gate_measuring.recorded import with_recorded
from deploykit.gate_measuring.subjects import Gated, budgets_of, commands_for, find_gated, from_here
from deploykit.gate_measuring.times import lower_of, measure_times
from deploykit.gate_records import (
    MASKS,
    MEASURED_BY_BENCH,
    Budget,
    GateReport,
    GateVerdict,
    Inconclusive,
    Measure,
    Observed,
)
from deploykit.pipeline import DEFAULT_FOLDER
from deploykit.results.store import FOLDER
from deploykit.vocab import in_words

Say = Callable[[str], None]
RULES = (HASH, EQUIVALENCE, *(measure.value for measure in Measure))


@dataclass(frozen=True)
class GateOptions:
    """What a user may choose. ``baseline`` None: ``gate-baseline.json`` here, where there is one. ``results`` None:
    saved runs in ``benchmarks/results`` here.

    ``only`` are rules or measures to judge, all where it is empty; ``max_seconds`` is for each comparison. With
    ``complete`` the ``paths`` are all that there is: a budget, or an artifact of the baseline, that none of them has to
    do with is a finding. What is ``known`` is not measured again.
    """

    paths: tuple[Path, ...] = ()
    output_dir: Path = DEFAULT_FOLDER
    recipes: tuple[str, ...] = ()
    baseline: Path | None = None
    cache: Path = DEFAULT_CACHE
    results: Path | None = None
    only: frozenset[str] = frozenset()
    samples: int = 32
    clips: int = 4
    max_seconds: float = 30.0
    strict: bool = False
    inconclusive: Inconclusive = Inconclusive.RETRY
    complete: bool = False
    known: Known = field(default_factory=Known)
    folder: Path = field(default_factory=Path.cwd)

    @property
    def baseline_path(self) -> Path:
        """Where the baseline is, or is to be written."""
        return self.baseline or self.folder / BASELINE_FILE


def run_gate(options: GateOptions, report: Say | None = None) -> GateReport:
    """Return the findings on the artifacts that ``options`` name.

    Raises:
        ArtifactError: nothing to judge, a manifest or baseline that is damaged, a cache that holds another file.
        RecipeError: a recipe or project file that is not valid.
        UsageError: options out of range, or artifacts that cannot be told apart.
    """
    say = report or (lambda message: None)
    _check(options)
    before = _baseline(options)
    gated, notes = find_gated(options.paths, options.output_dir, options.recipes, options.folder)
    budgets = budgets_of(gated, options.folder)
    chosen = tuple(one for one in budgets if not options.only or one.measure in options.only)
    observed = [_seen(one, options, say) for one in gated]
    observed = _with_masks(gated, observed, chosen, options, say)
    observed = [_with_advice(one, seen, options, say) for one, seen in zip(gated, observed, strict=True)]
    observed = with_recorded(observed, chosen, options.results or options.folder / FOLDER)
    observed = _with_times(gated, observed, chosen, options, say)
    comparing = Comparing(options.cache, options.max_seconds, options.inconclusive is Inconclusive.RETRY, say)
    observed = with_trials(gated, observed, chosen, before, comparing)
    findings = [found for one in observed for found in judge_artifact(Context(one, chosen, before))]
    if options.only:
        notes = (*notes, "only some rules were applied: " + ", ".join(sorted(options.only)))
    elif options.complete or not options.paths:
        findings += asleep(observed, budgets, before)
    return decided(
        findings,
        strict=options.strict,
        inconclusive=options.inconclusive,
        baseline=None if before is None else from_here(options.baseline_path),
        notes=notes,
        subjects=[one.subject for one in gated],
    )


def new_baseline(options: GateOptions, report: Say | None = None) -> tuple[Baseline | None, Baseline]:
    """Return the baseline as it is, None for none, and as it would be with the artifacts at hand.

    Their files are put into the cache. Raises ArtifactError for one that is not as it was exported; otherwise as
    ``run_gate``.
    """
    say = report or (lambda message: None)
    path = options.baseline_path
    before = read_baseline(path) if path.is_file() else None
    gated, _ = find_gated(options.paths, options.output_dir, options.recipes, options.folder)
    rows = []
    for one in gated:
        seen = _seen(one, replace(options, only=frozenset({HASH})), say)
        if seen.changed:
            raise ArtifactError(
                "The file is not as it was exported; it cannot become the baseline.",
                where=one.subject.path,
                found="; ".join(seen.changed),
                expected="a file as its manifest describes it",
                next_step="export again",
            )
        artifact = one.artifact
        rows.append(
            accepted(
                seen,
                plan=artifact.plan,
                recipe_sha256=artifact.recipe_sha256,
                checkpoint_sha256=artifact.checkpoint_sha256,
            )
        )
        keep(artifact, options.cache)
    return before, updated(before, rows, whole=not options.paths)


def _check(options: GateOptions) -> None:
    unknown = sorted(options.only - set(RULES))
    if unknown:
        raise UsageError("There is no such rule.", where="--only", found=", ".join(unknown), expected=", ".join(RULES))
    rows = (
        ("--samples", options.samples, 1 <= options.samples <= 128, "1 to 128"),
        ("--clips", options.clips, 1 <= options.clips <= 64, "1 to 64"),
        ("--max-seconds", options.max_seconds, 0 < options.max_seconds < float("inf"), "more than 0"),
    )
    for where, found, good, expected in rows:
        if not good:
            raise UsageError("The value is out of range.", where=where, found=str(found), expected=expected)


def _baseline(options: GateOptions) -> Baseline | None:
    path = options.baseline_path
    if path.is_file() or path.is_dir():
        return read_baseline(path)
    if options.baseline is not None:
        raise UsageError(
            "There is no such baseline.",
            where=str(path),
            found="nothing",
            expected="a file that deploykit gate --update-baseline wrote",
            next_step=f"make it with: deploykit gate --update-baseline --baseline {shlex.quote(from_here(path))}",
        )
    return None


def _seen(one: Gated, options: GateOptions, say: Say) -> Observed:
    """Return what is known of an artifact without running it, and how far it agrees with its checkpoint."""
    evaluated_with = options.known.settings(one.artifact) or f"--samples {options.samples} --clips {options.clips}"
    commands = commands_for(one, evaluated_with)
    say(f"looking at {one.subject.name}")
    changed = changed_since_export(one.artifact)
    if changed:
        return Observed(one.subject, changed=changed, commands=commands)
    seen = Observed(one.subject, figures=count(one.artifact), agreements=(), commands=commands)
    if options.only and EQUIVALENCE not in options.only:
        return seen
    verified = options.known.verification(one.artifact)
    if verified is None:
        say(f"verifying {one.subject.name}")
    found, broken, unverified = agreements(one, verified)
    return replace(seen, agreements=found, broken=broken, unverified=unverified)


def _those(
    gated: Sequence[Gated], observed: Sequence[Observed], budgets: Sequence[Budget], measures: Sequence[Measure]
) -> list[Gated]:
    """Return the artifacts of which a budget limits one of ``measures``, but for files that were changed."""
    return [
        one
        for one, seen in zip(gated, observed, strict=True)
        if not seen.changed and wanted(seen, budgets) & set(measures)
    ]


def _with_masks(
    gated: Sequence[Gated], observed: Sequence[Observed], budgets: Sequence[Budget], options: GateOptions, say: Say
) -> list[Observed]:
    asked = _those(gated, observed, budgets, MASKS)
    losses = {one.subject.name: options.known.losses(one.artifact) for one in asked}
    limited = {one.subject.name: wanted(one, budgets) & {*MASKS} for one in observed}
    left = [one for one in asked if not limited[one.subject.name] <= losses[one.subject.name].keys()]
    if left:
        say(f"evaluating {len(left)} files and their checkpoints on {options.samples} portraits")
        losses |= mask_losses(left, samples=options.samples, clips=options.clips)
    return [replace(one, figures={**one.figures, **losses.get(one.subject.name, {})}) for one in observed]


def _with_advice(one: Gated, seen: Observed, options: GateOptions, say: Say) -> Observed:
    if seen.changed or (options.only and Measure.NEURAL_ENGINE not in options.only):
        return seen
    advice, figure = neural_engine_advice(one, say)
    return (
        seen
        if figure is None
        else replace(seen, advice=advice, figures={**seen.figures, Measure.NEURAL_ENGINE: figure})
    )


def _with_times(
    gated: Sequence[Gated], observed: Sequence[Observed], budgets: Sequence[Budget], options: GateOptions, say: Say
) -> list[Observed]:
    """Return ``observed`` with times and memory; what fails is measured once more, and the lower figure counts."""
    found = list(observed)
    for turn in range(2):
        asked = _those(gated, found, budgets, MEASURED_BY_BENCH)
        if turn:
            asked = [one for one in asked if _too_slow(found[gated.index(one)], budgets)]
        if not asked:
            break
        say(f"measuring {in_words(len(asked), 'file')}" + (" again, too slow before" if turn else ""))
        measured = measure_times(asked, say, max_seconds=options.max_seconds)
        for one in asked:
            index, figures = gated.index(one), measured[one.subject.name]
            known = found[index].figures
            found[index] = replace(found[index], figures=lower_of(known, figures) if turn else {**known, **figures})
    return found


def _too_slow(seen: Observed, budgets: Sequence[Budget]) -> bool:
    measures = {measure.value for measure in MEASURED_BY_BENCH}
    beyond = (GateVerdict.FAIL, GateVerdict.INCONCLUSIVE)
    # What was saved elsewhere is not measured again here.
    found = judge_artifact(Context(replace(seen, recorded=()), tuple(budgets), None))
    return any(one.rule in measures and one.verdict in beyond for one in found)
