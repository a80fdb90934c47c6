"""The process in which two things run against each other: ``python -m deploykit.latency.rounds``.

Questions come as lines of JSON on standard input and are answered by lines of JSON on standard output until the input
ends; what libraries print goes to standard error. A file that ends its process ends this one alone.

A round makes three sessions anew (A, B, and A once more as control), warms them up and runs blocks of triples. Its
answer has the samples; who is faster is judged elsewhere, while nothing runs here.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from deploykit.errors import DeploykitError
from deploykit.latency.agent.conditions import Watch
from deploykit.latency.agent.cores import pin
from deploykit.latency.agent.meter import Meter
from deploykit.latency.contender import Contender, Entry, Run
from deploykit.latency.schedule import CONTENDERS, CONTROL, CYCLE, A, B, block_runs, creation_order

# What is made at the first run and at the second is not measured.
WARMUP_RUNS = 2
WARMUP_S = 0.005
# A shorter turn is repeated within one reading of the clock.
SHORTEST_TURN_S = 0.0005
BLOCKS = 2
MOST_TRIPLES = 64
# With less a round would be little but the making of sessions.
SHORTEST_SAMPLING_S = 0.04
# So many rounds are to fit into the time, at least, where the making of sessions allows it.
WANTED_ROUNDS = 12


class Rounds:
    """A and B, ready to run in rounds."""

    def __init__(self, first: Entry, second: Entry, threads: int, affinity: Sequence[int]) -> None:
        self._meter = Meter(threads)
        self._entries = {A: first, B: second, CONTROL: first}
        self._triples = self._repeats = 1
        self._blocks_done = self._rounds_done = 0
        self._cycle_s = 0.0
        self._began = time.perf_counter()
        self._watch = Watch(affinity, lambda: time.perf_counter() - self._began)

    def rehearse(self, max_seconds: float) -> None:
        """Run one round that does not count, and choose from its times how long the others are."""
        self._began = time.perf_counter()
        self._watch.read()
        found = self._round()
        fastest = min(min(row) for row in found["warm_s"])
        triple = sum(row[-1] for row in found["warm_s"])
        self._repeats = max(1, round(SHORTEST_TURN_S / max(fastest, 1e-9)))
        room = max_seconds / WANTED_ROUNDS - found["setup_s"]
        wanted = max(SHORTEST_SAMPLING_S, min(found["setup_s"], room))
        self._triples = min(MOST_TRIPLES, max(1, round(wanted / BLOCKS / (triple * self._repeats))))
        self._cycle_s = CYCLE * (found["setup_s"] + wanted)
        self._blocks_done = self._rounds_done = 0

    def run(self, until_s: float) -> Iterator[dict[str, Any]]:
        """Yield rounds, whole cycles of creation orders, that end before ``until_s`` after the rehearsal began."""
        while time.perf_counter() - self._began + self._cycle_s <= until_s:
            start = time.perf_counter()
            for _ in range(CYCLE):
                yield self._round()
            self._cycle_s = time.perf_counter() - start

    def _round(self) -> dict[str, Any]:
        order = creation_order(self._rounds_done)
        runs: dict[int, Run] = {}
        warm: dict[int, list[float]] = {}
        began = time.perf_counter()
        with ExitStack() as stack:
            for contender in order:
                runs[contender] = stack.enter_context(self._entries[contender].session())
            for contender in order:
                warm[contender] = _warm_up(runs[contender])
            set_up = time.perf_counter() - began
            starts, samples, away = [], [], []
            for _ in range(BLOCKS):
                starts.append(time.perf_counter() - self._began)
                taken, elsewhere = self._block(runs)
                samples.append(taken)
                away.append(elsewhere)
        gc.collect()
        self._rounds_done += 1
        return {
            "order": order,
            "setup_s": set_up,
            "warm_s": [warm[contender] for contender in range(CONTENDERS)],
            "starts_s": starts,
            "samples_s": samples,
            "away_s": away,
            "repeats": self._repeats,
            "conditions": self._watch.read(),
        }

    def _block(self, runs: dict[int, Run]) -> tuple[list[list[float]], list[list[float]]]:
        """Return the seconds of one inference [triple, contender], and those in which the core was taken away."""
        clock, meter, repeats = time.perf_counter_ns, self._meter, range(self._repeats)
        times = [[0] * CONTENDERS for _ in range(self._triples)]
        away = [[0] * CONTENDERS for _ in range(self._triples)]
        for triple, contender in block_runs(self._blocks_done, self._triples):
            run = runs[contender]
            meter.begin()
            start = clock()
            for _ in repeats:
                run(triple)
            taken = clock() - start
            if triple >= 0:
                times[triple][contender] = taken
                away[triple][contender] = meter.end(taken)[0]
        self._blocks_done += 1
        return self._seconds(times), self._seconds(away)

    def _seconds(self, times: list[list[int]]) -> list[list[float]]:
        return [[taken / self._repeats / 1e9 for taken in row] for row in times]


def _warm_up(run: Run) -> list[float]:
    times: list[float] = []
    while len(times) < WARMUP_RUNS or sum(times) < WARMUP_S:
        start = time.perf_counter()
        run(len(times))
        times.append(time.perf_counter() - start)
    return times


class Worker:
    """Answers questions: ``open``, then ``rehearse``, then ``rounds`` as often as wanted."""

    def __init__(self, answers: IO[bytes]) -> None:
        self._answers = answers
        self._entries: list[Entry] = []
        self._rounds: Rounds | None = None

    def answer(self, question: dict[str, Any]) -> None:
        """Answer one question; what a user can mend is answered as an error with its parts."""
        try:
            getattr(self, f"_{question.pop('ask')}")(**question)
        except DeploykitError as error:
            parts = ("message", "where", "found", "expected", "next_step")
            self._say(error={name: getattr(error, name) for name in parts} | {"kind": type(error).__name__})

    def _open(self, contenders: list[dict[str, Any]], threads: int, affinity: list[int]) -> None:
        pin(affinity)
        entries, opened = [], []
        for one in contenders:
            self._say(opening=one["name"])
            path = None if one["path"] is None else Path(one["path"])
            entry = Entry(Contender(one["name"], path, one["recipe"], tuple(map(Path, one["photos"]))), threads)
            opened.append(entry.look())
            entries.append(entry)
        self._entries = entries
        self._rounds = Rounds(entries[A], entries[B], threads, affinity)
        gc.collect()
        gc.freeze()
        gc.disable()
        self._say(opened=[{"input_shapes": one.input_shapes, "runtime": one.runtime} for one in opened])

    def _rehearse(self, max_seconds: float) -> None:
        assert self._rounds is not None
        self._rounds.rehearse(max_seconds)
        self._say(done=True)

    def _run(self, until_s: float) -> None:
        assert self._rounds is not None
        for one in self._rounds.run(until_s):
            self._say(round=one)
        self._say(done=True)

    def _save(self, paths: list[str]) -> None:
        for path, entry in zip(paths, self._entries, strict=True):
            np.savez(path, allow_pickle=False, **(entry.inputs[0] if entry.inputs else {}))
        self._say(done=True)

    def _say(self, **message: Any) -> None:
        self._answers.write(json.dumps(message).encode() + b"\n")
        self._answers.flush()


def main() -> None:
    """Answer until there is nothing more to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    worker = Worker(answers)
    for line in sys.stdin.buffer:
        worker.answer(json.loads(line))


if __name__ == "__main__":
    main()
