"""One trial: rounds until the verdict is clear or the time is up, looked at a few times only."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from deploykit.comparison_records import Judgement, Round, Verdict
from deploykit.latency.duel import Duel
from deploykit.latency.pairs import ERROR, LOOKS, MARGIN, as_samples, judge, preempted


@dataclass(frozen=True)
class Trial:
    """The rounds of a trial and what they say. ``complete`` is False where the user ended it."""

    judgement: Judgement
    rounds: tuple[Round, ...]
    seconds: float
    complete: bool

    @property
    def preempted(self) -> float:
        """The part of the samples during which another process got the core."""
        return preempted(self.rounds)


def run_trial(
    duel: Duel,
    max_seconds: float,
    *,
    margin: float = MARGIN,
    seed: int = 0,
    error: float = ERROR,
    report: Callable[[str], None] | None = None,
) -> Trial:
    """Return the verdict on the second of ``duel``, after at most ``max_seconds`` from the first round on.

    ``error`` is the chance of finding a difference where there is none.
    Ctrl-C ends it with what there is, which before the first look is judged as there.
    """
    say = report or (lambda message: None)
    rounds: list[Round] = []
    began = time.perf_counter()
    judgement: Judgement | None = None
    try:
        say("rehearsing")
        duel.rehearse(max_seconds)
        for look, part in enumerate(LOOKS):
            say(_progress(judgement, part * max_seconds))
            duel.run(part * max_seconds, rounds.append)
            judgement = judge(as_samples(rounds), margin=margin, look=look, seed=seed, error=error)
            if judgement.verdict is not Verdict.INCONCLUSIVE:
                break
    except KeyboardInterrupt:
        if judgement is None:
            judgement = judge(as_samples(rounds), margin=margin, look=0, seed=seed, error=error)
        return Trial(judgement, tuple(rounds), time.perf_counter() - began, complete=False)
    assert judgement is not None
    return Trial(judgement, tuple(rounds), time.perf_counter() - began, complete=True)


def _progress(judgement: Judgement | None, until_s: float) -> str:
    if judgement is None or judgement.effect is None:
        return f"running in turn, first {until_s:.3g} s"
    return f"B / A {judgement.effect.ratio:.3f} so far, not clear yet: running on to {until_s:.3g} s"
