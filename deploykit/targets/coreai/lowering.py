"""The exact rewrites that Core AI wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_max_pooling import adaptive_max_pooling
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.average_pooling_border import average_pooling_border
from deploykit.graph.passes.ceil_average_pooling import ceil_average_pooling
from deploykit.graph.passes.global_average_pooling import global_average_pooling_by_window
from deploykit.graph.passes.grid_sample_by_gather import grid_sample_by_gather
from deploykit.graph.passes.nearest_by_index import nearest_by_index
from deploykit.graph.passes.prelu_by_slope import prelu_by_slope
from deploykit.graph.passes.resize_as_products import resize_as_products

PASSES: tuple[Pass, ...] = (
    prelu_by_slope,
    adaptive_pooling,
    adaptive_max_pooling,
    global_average_pooling_by_window,
    ceil_average_pooling,
    average_pooling_border,
    nearest_by_index,
    resize_as_products,
    grid_sample_by_gather,
)
