"""The orders in which sessions are made and run: nobody has a better place than another."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from deploykit.latency.schedule import CONTENDERS, CONTROL, CYCLE, ORDERS, A, B, block_runs, creation_order, run_order


def test_a_cycle_of_rounds_gives_each_every_place_and_two_cycles_every_order() -> None:
    for start in (0, CYCLE):
        orders = [creation_order(start + index) for index in range(CYCLE)]
        for place in range(CONTENDERS):
            assert sorted(order[place] for order in orders) == [A, B, CONTROL]
    assert len({creation_order(index) for index in range(2 * CYCLE)}) == len(ORDERS)


def test_two_blocks_in_a_row_turn_round_who_comes_before_whom() -> None:
    for first in range(0, 12, 2):
        one, two = (set(_successions(first + block)) for block in range(2))
        assert {(later, earlier) for earlier, later in one} == two


def test_everybody_runs_as_often_and_always_after_somebody_else() -> None:
    for block in range(6):
        runs = list(block_runs(block, 4))
        assert [triple for triple, _ in runs] == [-1, *(index for index in range(4) for _ in range(CONTENDERS))]
        counted = Counter(contender for triple, contender in runs if triple >= 0)
        assert counted == dict.fromkeys((A, B, CONTROL), 4)
        assert all(earlier != later for (_, earlier), (_, later) in pairwise(runs))


def _successions(block: int) -> list[tuple[int, int]]:
    order = run_order(block)
    return [(order[index], order[(index + 1) % CONTENDERS]) for index in range(CONTENDERS)]
