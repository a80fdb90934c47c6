"""Optimize: the exact rewrites that make the exported file small and fast, in order, until nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import fx

from deploykit.graph.graph import Graph, Recorder, tidy
from deploykit.graph.passes import (
    absorb_permutations,
    common_subexpressions,
    commute_resize,
    compose_convolutions,
    fold_constants,
    keepdim_reductions,
    move_affine,
    remove_unread_channels,
    split_constant_sums,
    two_class_softmax,
    vectors_as_images,
)
from deploykit.records import Fired, PassReport

_PASSES: tuple[tuple[str, Callable[[fx.GraphModule, Recorder], None]], ...] = (
    (fold_constants.NAME, fold_constants.rewrite),
    (common_subexpressions.NAME, common_subexpressions.rewrite),
    (keepdim_reductions.NAME, keepdim_reductions.rewrite),
    (vectors_as_images.NAME, vectors_as_images.rewrite),
    (two_class_softmax.NAME, two_class_softmax.rewrite),
    (absorb_permutations.NAME, absorb_permutations.rewrite),
    (move_affine.NAME, move_affine.rewrite),
    (commute_resize.NAME, commute_resize.rewrite),
    (compose_convolutions.NAME, compose_convolutions.rewrite),
    (remove_unread_channels.NAME, remove_unread_channels.rewrite),
    (split_constant_sums.NAME, split_constant_sums.rewrite),
)
PASSES = tuple(name for name, _ in _PASSES)


def optimize(graph: Graph, names: Sequence[str] = PASSES) -> Graph:
    """Return ``graph`` after the passes in ``names``, repeated in order until none finds anything to do."""
    copied = graph.copy()
    chosen = [(name, rewrite) for name, rewrite in _PASSES if name in names]
    fired: dict[str, list[Fired]] = {name: [] for name, _ in chosen}
    last: dict[str, PassReport] = {}
    while True:
        again = False
        for name, rewrite in chosen:
            recorder = Recorder(name)
            rewrite(copied.module, recorder)
            last[name] = recorder.report()
            fired[name] += last[name].fired
            again = again or bool(last[name].fired)
        if not again:
            break
    tidy(copied.module)
    reports = tuple(PassReport(name, tuple(fired[name]), last[name].skipped) for name, _ in chosen)
    return replace(copied, reports=(*copied.reports, *reports))
