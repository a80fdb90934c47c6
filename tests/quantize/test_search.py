from __future__ import annotations

import pytest

from deploykit.quantize.search import keep_few
from deploykit.records import KeptLayer, Trade

RANKING = tuple(KeptLayer(f"layer {index}", float(index)) for index in range(20))


def _measured(losses: dict[int, float], calls: list[int]):
    def measure(count: int) -> Trade:
        calls.append(count)
        below = max(known for known in losses if known <= count)
        return Trade(count, losses[below], 1000 + count, 2000 + count)

    return measure


@pytest.mark.parametrize(("losses", "expected"), [({0: 0.2}, 0), ({0: 5.0, 7: 0.3}, 7), ({0: 5.0, 20: 0.3}, 20)])
def test_as_few_layers_as_the_limit_needs(losses, expected):
    calls: list[int] = []
    kept = keep_few(lambda: RANKING, 0.5, _measured(losses, calls))
    assert kept.reached
    assert [one.layer for one in kept.layers] == [f"layer {index}" for index in range(expected)]
    assert len(calls) == len(set(calls)) <= 7
    assert [one.kept for one in kept.trades] == sorted(calls)


def _never() -> tuple[KeptLayer, ...]:
    raise AssertionError("nothing has to be ranked")


def test_nothing_is_ranked_where_all_may_be_integers():
    calls: list[int] = []
    kept = keep_few(_never, 0.5, _measured({0: 0.2}, calls))
    assert (kept.layers, calls, kept.reached) == ((), [0], True)


def test_without_a_limit_everything_is_quantized():
    calls: list[int] = []
    kept = keep_few(_never, None, _measured({0: 50.0, 1: 0.0}, calls))
    assert (kept.layers, calls, kept.reached) == ((), [0], True)


def test_a_limit_that_no_choice_keeps_is_told():
    calls: list[int] = []
    kept = keep_few(lambda: RANKING, 0.1, _measured({0: 5.0, 20: 0.3}, calls))
    assert not kept.reached
    assert len(kept.layers) == 20
    assert calls == [0, 20]
