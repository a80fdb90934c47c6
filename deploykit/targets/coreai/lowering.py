"""The exact rewrites that Core AI wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.average_pooling_border import average_pooling_border
from deploykit.graph.passes.global_average_pooling import global_average_pooling
from deploykit.graph.passes.grid_sample_by_gather import grid_sample_by_gather
from deploykit.graph.passes.prelu_by_slope import prelu_by_slope

PASSES: tuple[Pass, ...] = (
    prelu_by_slope,
    adaptive_pooling,
    global_average_pooling,
    average_pooling_border,
    grid_sample_by_gather,
)
