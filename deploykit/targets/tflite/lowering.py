"""The exact rewrites that TFLite wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.ceil_max_pooling import ceil_max_pooling
from deploykit.graph.passes.constant_on_the_right import constant_on_the_right
from deploykit.graph.passes.grid_sample_by_gather import grid_sample_by_gather
from deploykit.graph.passes.keepdim_reductions import keepdim_reductions

PASSES: tuple[Pass, ...] = (
    adaptive_pooling,
    ceil_max_pooling,
    grid_sample_by_gather,
    keepdim_reductions,
    constant_on_the_right,
)
