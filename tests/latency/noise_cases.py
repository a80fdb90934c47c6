"""Samples of a simulated noisy machine whose truth is known: what sessions, bursts, swings and other processes do."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deploykit.comparison_records import Round
from deploykit.latency.schedule import CONTENDERS, B, block_runs, creation_order

BLOCKS = 2


@dataclass(frozen=True)
class Machine:
    """How noisy it is. ``session_sd``: of the log of a session's speed; ``order_effect``: first to last session made;
    ``swings`` to half the speed, 0.1 to 2 s long, and ``bursts`` of 5 to 40 ms, both a second; ``preempted``: part of
    the runs in which another process gets the core.
    """

    session_sd: float = 0.005
    order_effect: float = 0.01
    jitter: float = 0.01
    swings: float = 0.2
    bursts: float = 1.0
    drift: float = 0.01
    preempted: float = 0.0


def rounds_of(
    machine: Machine,
    seed: int,
    *,
    slower_by: float = 0.0,
    rounds: int = 12,
    triples: int = 4,
    run_s: float = 0.003,
    order: Callable[[int], Sequence[int]] = creation_order,
) -> list[Round]:
    """Return rounds in which one inference of B takes ``1 + slower_by`` times that of A."""
    rng = np.random.default_rng(seed)
    setup_s = 0.06
    whole = rounds * (setup_s + BLOCKS * (triples * CONTENDERS + 1) * run_s) * 2
    speed = _speed(machine, whole, rng)
    now, blocks, found = 0.0, 0, []
    for index in range(rounds):
        effects = rng.standard_t(5, CONTENDERS) * machine.session_sd
        for place, contender in enumerate(order(index)):
            effects[contender] += machine.order_effect * (place - 1) / 2
        effects[B] += math.log1p(slower_by)
        now += setup_s
        samples, away = np.empty((BLOCKS, triples, CONTENDERS)), np.zeros((BLOCKS, triples, CONTENDERS))
        for block in range(BLOCKS):
            for triple, contender in block_runs(blocks, triples):
                slow = speed[min(int(now * 1000), len(speed) - 1)]
                own = run_s * math.exp(effects[contender] + slow + abs(rng.standard_t(3)) * machine.jitter)
                others = rng.uniform(0.001, 0.004) if rng.random() < machine.preempted else 0.0
                now += own + others
                if triple >= 0:
                    samples[block, triple, contender], away[block, triple, contender] = own + others, others
            blocks += 1
        found.append(Round(tuple(order(index)), setup_s, (now,) * BLOCKS, _tuples(samples), _tuples(away)))
    return found


def _speed(machine: Machine, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Return the log of how much slower the machine is in each millisecond."""
    count = int(seconds * 1000) + 1
    slow = np.cumsum(rng.normal(0, machine.drift / math.sqrt(1000), count))
    for _ in range(rng.poisson(machine.swings * seconds)):
        start, length = rng.integers(count), int(1000 * math.exp(rng.uniform(math.log(0.1), math.log(2))))
        slow[start : start + length] += math.log(2) * rng.uniform(0.5, 1)
    for _ in range(rng.poisson(machine.bursts * seconds)):
        start, length = rng.integers(count), rng.integers(5, 40)
        slow[start : start + length] += rng.exponential(0.4)
    return slow


def _tuples(values: np.ndarray) -> tuple[tuple[tuple[float, ...], ...], ...]:
    return tuple(tuple(tuple(map(float, row)) for row in block) for block in values)
