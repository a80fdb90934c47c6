"""As few layers in float as needed: the ranking by what each layer costs alone, and bisection on the file itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploykit.records import KeptLayer, Trade


@dataclass(frozen=True)
class Kept:
    """The layers that stay in float, and every trade that was measured on the way, fewest layers first.

    ``reached`` says whether the asked limit was kept.
    """

    layers: tuple[KeptLayer, ...]
    trades: tuple[Trade, ...]
    reached: bool


def keep_few(rank: Callable[[], Sequence[KeptLayer]], limit: float | None, measure: Callable[[int], Trade]) -> Kept:
    """Return the shortest beginning of the ranking that loses at most ``limit`` points in float, by bisection.

    ``rank`` gives it, and is called only where something has to stay in float. ``measure`` makes and runs the file with
    so many layers kept. Without a limit nothing is kept. Where even all layers in float lose more, what loses least is
    returned.
    """
    trades = {0: measure(0)}
    ranking = rank() if limit is not None and trades[0].drop_points > limit else ()
    if limit is not None and ranking:
        most = len(ranking)
        trades[most] = measure(most)
        low, high = 0, most
        while trades[high].drop_points <= limit and high - low > 1:
            middle = (low + high) // 2
            trades[middle] = measure(middle)
            if trades[middle].drop_points <= limit:
                high = middle
            else:
                low = middle
    ordered = tuple(trades[count] for count in sorted(trades))
    good = [one for one in ordered if limit is None or one.drop_points <= limit]
    chosen = good[0] if good else min(ordered, key=lambda one: one.drop_points)
    return Kept(tuple(ranking[: chosen.kept]), ordered, bool(good))
