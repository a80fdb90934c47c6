"""When a trial looks and when it ends, on rounds of a simulated machine in the place of the process that runs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from noise_cases import Machine, rounds_of

from deploykit.comparison_records import Round, Verdict
from deploykit.latency.duel import Duel
from deploykit.latency.pairs import LOOKS
from deploykit.latency.trial import run_trial

ROUNDS = 48


class Simulated:
    """Gives the rounds that fit into the time, and what is to happen at a look."""

    def __init__(self, rounds: list[Round], stop_at: int | None = None) -> None:
        self.rounds, self.stop_at = rounds, stop_at
        self.given = 0
        self.until: list[float] = []

    def rehearse(self, max_seconds: float) -> None:
        self.max_seconds = max_seconds

    def run(self, until_s: float, on_round: Callable[[Round], None]) -> None:
        if len(self.until) == self.stop_at:
            raise KeyboardInterrupt
        self.until.append(until_s)
        reached = int(len(self.rounds) * until_s / self.max_seconds)
        for one in self.rounds[self.given : reached]:
            on_round(one)
        self.given = reached


def _simulated(slower_by: float, session_sd: float = 0.005, stop_at: int | None = None) -> Simulated:
    return Simulated(rounds_of(Machine(session_sd=session_sd), 1, slower_by=slower_by, rounds=ROUNDS), stop_at)


def test_what_is_clear_early_ends_early() -> None:
    duel = _simulated(0.5)
    trial = run_trial(cast("Duel", duel), 8.0)
    assert trial.judgement.verdict is Verdict.SLOWER
    assert duel.until == [LOOKS[0] * 8.0]
    assert len(trial.rounds) == trial.judgement.rounds == ROUNDS * LOOKS[0]
    assert trial.complete


def test_what_is_never_clear_uses_all_the_time() -> None:
    duel, said = _simulated(0.03, session_sd=0.05), list[str]()
    trial = run_trial(cast("Duel", duel), 8.0, report=said.append)
    assert trial.judgement.verdict is Verdict.INCONCLUSIVE
    assert duel.until == [part * 8.0 for part in LOOKS]
    assert len(trial.rounds) == ROUNDS
    assert "not clear yet" in said[-1]


def test_ctrl_c_keeps_what_was_judged_before() -> None:
    trial = run_trial(cast("Duel", _simulated(0.03, session_sd=0.05, stop_at=2)), 8.0)
    assert not trial.complete
    assert trial.judgement.effect is not None
    assert trial.judgement.rounds == ROUNDS * LOOKS[1]


def test_ctrl_c_before_the_first_look_keeps_the_rounds_that_there_are() -> None:
    nothing = run_trial(cast("Duel", _simulated(0.03, stop_at=0)), 8.0)
    assert (nothing.complete, nothing.rounds, nothing.preempted) == (False, (), 0.0)
    assert "only 0 rounds" in nothing.judgement.reason
    duel = _simulated(0.5)
    plain = duel.run

    def interrupted(until_s: float, on_round: Callable[[Round], None]) -> None:
        plain(until_s, on_round)
        raise KeyboardInterrupt

    duel.run = interrupted  # type: ignore[method-assign]
    some = run_trial(cast("Duel", duel), 8.0)
    assert not some.complete
    assert len(some.rounds) == some.judgement.rounds == ROUNDS * LOOKS[0]
    assert some.judgement.effect is not None
