"""Latency beside the baseline's own files, which are had by hash and measured in the same run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploykit.comparison import compare, judged_again
from deploykit.comparison_records import LatencyComparison
from deploykit.errors import DeploykitError
from deploykit.gate.baseline import Baseline
from deploykit.gate.rules import LATENCY_GROWTH, applies
from deploykit.gate.trials import Contest, run_contests
from deploykit.gate_measuring.baseline_files import baseline_file
from deploykit.gate_measuring.subjects import Gated
from deploykit.gate_records import Budget, GateVerdict, LatencyTrial, Measure, Observed


@dataclass(frozen=True)
class Comparing:
    """How files are compared: where the baseline's are kept, for how long, and whether what stays open is repeated."""

    cache: Path
    max_seconds: float
    retry: bool
    say: Callable[[str], None]

    def measure(self, contest: Contest, error: float, times: float) -> LatencyComparison | str:
        """Return the comparison of one contest, or why there is none."""
        self.say(f"comparing {contest.name} with its baseline")
        try:
            found = compare(
                contest.baseline_path,
                contest.path,
                margin=contest.margin,
                max_seconds=self.max_seconds * times,
                error=error,
                report=self.say,
            )
        except DeploykitError as failure:
            return f"{failure.message} {failure.found or ''}".strip()
        if not found.complete:
            raise KeyboardInterrupt
        return found


def with_trials(
    gated: Sequence[Gated],
    observed: Sequence[Observed],
    budgets: Sequence[Budget],
    before: Baseline | None,
    comparing: Comparing,
) -> list[Observed]:
    """Return ``observed`` with what came of measuring each file beside its baseline's in this run.

    Raises ArtifactError where the cache holds another file than its name says.
    """
    found = list(observed)
    contests: list[tuple[int, Contest]] = []
    for index, (one, seen) in enumerate(zip(gated, observed, strict=True)):
        margins = {
            budget.max_growth
            for budget in budgets
            if budget.measure is Measure.LATENCY and budget.max_growth is not None and applies(budget, seen)
        }
        old = None if before is None else before.of(one.subject.name)
        if not margins or old is None or seen.changed:
            continue
        if old.content_hash == one.subject.content_hash:
            same = LatencyTrial(
                GateVerdict.PASS, "it has the content of the baseline's file: there is nothing to compare"
            )
            found[index] = replace(seen, trials=dict.fromkeys(margins, same))
            continue
        path = baseline_file(old, one, comparing.cache, comparing.say)
        if isinstance(path, str):
            found[index] = replace(seen, trials=dict.fromkeys(margins, LatencyTrial(GateVerdict.SKIPPED, path)))
            continue
        contests += [(index, Contest(one.subject.name, path.as_posix(), one.subject.path, m)) for m in sorted(margins)]
    trials = run_contests(
        [contest for _, contest in contests],
        comparing.measure,
        judged_again,
        retry=comparing.retry,
    )
    for (index, contest), trial in zip(contests, trials, strict=True):
        files = f"{shlex.quote(contest.baseline_path)} {shlex.quote(contest.path)}"
        command = f"deploykit compare {files} --margin {contest.margin:g} --max-seconds {comparing.max_seconds:g}"
        seen = found[index]
        found[index] = replace(
            seen,
            trials={**seen.trials, contest.margin: trial},
            commands={**seen.commands, LATENCY_GROWTH: command},
        )
    return found
