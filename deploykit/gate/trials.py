"""Latency beside the baseline's files: one error rate for all comparisons of a run, and no failure on one word alone.

Holm (1979) rejects the smallest of m p-values at error/m, the next at error/(m - 1) and so on, until one stays. A
p-value is below a level exactly where the interval at that level lies wholly beyond the bound, so that the same is done
with intervals: all are measured at error/m; with r failures among them what is open is judged again, from the same
samples, at error/(m - r), until nothing new fails. A failure is then measured anew, in new processes, and only one that
fails both times is reported. Retries therefore cost no error: two independent measurements have to be wrong alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from deploykit.comparison_records import Judgement, LatencyComparison, Verdict
from deploykit.gate_records import GateVerdict, LatencyTrial

# The chance that any of a run's comparisons says of equal files that one is slower.
ERROR = 0.01
RETRY_TIME = 2.0


@dataclass(frozen=True)
class Contest:
    """One artifact beside its baseline's file, which it may exceed by ``margin`` (0.05: five per cent)."""

    name: str
    baseline_path: str
    path: str
    margin: float


# Measures a contest anew, with an error and so many times the usual time; a text says why it cannot be measured.
Measure = Callable[[Contest, float, float], LatencyComparison | str]
# Judges the samples of a comparison again, with another error.
Judge = Callable[[LatencyComparison, float], Judgement]


def budget_verdict(judged: Judgement) -> GateVerdict:
    """Return whether the samples say that B keeps the margin, exceeds it, or neither.

    It exceeds it where the whole interval is beyond margin and noise floor. It keeps it where the whole interval is
    below the margin, however much faster it is, and A beside itself stayed within the margin too.
    """
    if judged.effect is None or judged.noise_floor is None:
        return GateVerdict.INCONCLUSIVE
    if judged.verdict is Verdict.SLOWER:
        return GateVerdict.FAIL
    if judged.verdict in (Verdict.FASTER, Verdict.SAME):
        return GateVerdict.PASS
    within = judged.effect.high < 1 + judged.margin and judged.noise_floor <= judged.margin
    return GateVerdict.PASS if within else GateVerdict.INCONCLUSIVE


def run_contests(
    contests: Sequence[Contest], measure: Measure, judge: Judge, *, error: float = ERROR, retry: bool = True
) -> tuple[LatencyTrial, ...]:
    """Return one trial for each contest, in order. With ``retry`` what noise left open is measured once more."""
    if not contests:
        return ()
    count = len(contests)
    first = [measure(one, error / count, 1.0) for one in contests]
    trials = [_skipped(one) if isinstance(one, str) else _trial(one.judgement, 1) for one in first]
    level = error / count
    while True:
        failed = sum(one.verdict is GateVerdict.FAIL for one in trials)
        if not 0 < failed < count or error / (count - failed) == level:
            break
        level = error / (count - failed)
        for index, found in enumerate(first):
            if trials[index].verdict is GateVerdict.INCONCLUSIVE and not isinstance(found, str):
                trials[index] = _trial(judge(found, level), 1)
    ended = []
    for contest, trial in zip(contests, trials, strict=True):
        last = _confirmed(contest, trial, measure, level, 1.0)
        if retry and last.verdict is GateVerdict.INCONCLUSIVE:
            again = measure(contest, level, RETRY_TIME)
            if not isinstance(again, str):
                longer = _trial(again.judgement, last.measured_times + 1)
                last = _confirmed(contest, longer, measure, level, RETRY_TIME)
        ended.append(replace(last, baseline_path=contest.baseline_path))
    return tuple(ended)


def _confirmed(contest: Contest, trial: LatencyTrial, measure: Measure, error: float, times: float) -> LatencyTrial:
    """Return a failure as it is after another measurement; anything else as it is."""
    if trial.verdict is not GateVerdict.FAIL:
        return trial
    again = measure(contest, error, times)
    if isinstance(again, str):
        return replace(trial, verdict=GateVerdict.INCONCLUSIVE, reason=f"slower once, and then not measured: {again}")
    second = _trial(again.judgement, trial.measured_times + 1)
    if second.verdict is GateVerdict.FAIL:
        return replace(second, reason=f"measured twice, slower both times: {second.reason}")
    reason = f"slower once ({trial.ratio:.3f} times), and not when measured anew: {second.reason}"
    return replace(second, verdict=GateVerdict.INCONCLUSIVE, reason=reason)


def _trial(judged: Judgement, measured_times: int) -> LatencyTrial:
    effect = judged.effect
    reason = judged.reason
    if effect is not None and judged.noise_floor is not None:
        reason = (
            f"{effect.ratio:.3f} [{effect.low:.3f}, {effect.high:.3f}] times the baseline, "
            f"which beside itself is within {judged.noise_floor:.1%}; {judged.reason}"
        )
    return LatencyTrial(
        verdict=budget_verdict(judged),
        reason=reason,
        ratio=None if effect is None else effect.ratio,
        interval=None if effect is None else (effect.low, effect.high),
        level=judged.level,
        measured_times=measured_times,
    )


def _skipped(reason: str) -> LatencyTrial:
    return LatencyTrial(GateVerdict.SKIPPED, reason)
