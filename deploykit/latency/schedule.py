"""In which order sessions are created and run, so that no place in an order favours one of three contenders.

The contenders are 0 (A), 1 (B) and 2 (the control: A once more, in a session of its own).
"""

from __future__ import annotations

from collections.abc import Iterator

A, B, CONTROL = 0, 1, 2
CONTENDERS = 3
CYCLE = 3
# Three in a row are a Latin square, six are all orders there are.
ORDERS = ((0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (0, 2, 1), (1, 0, 2))
# Orders of one sense and of the other in turn: who comes before whom is turned round from block to block.
_SENSES = (0, 3, 1, 4, 2, 5)


def creation_order(round_index: int) -> tuple[int, ...]:
    """Return the order in which the sessions of a round are created; three rounds give each every place once."""
    return ORDERS[round_index % len(ORDERS)]


def run_order(block_index: int) -> tuple[int, ...]:
    """Return the order in which the contenders of a block run, over and over; blocks are counted over all rounds."""
    return ORDERS[_SENSES[block_index % len(ORDERS)]]


def block_runs(block_index: int, triples: int) -> Iterator[tuple[int, int]]:
    """Yield (triple, contender) for every run of a block of ``triples`` triples; triple -1 is not counted.

    The last contender of the order runs once before the first triple: so everyone always runs after somebody else.
    """
    order = run_order(block_index)
    yield -1, order[-1]
    for triple in range(triples):
        for contender in order:
            yield triple, contender
