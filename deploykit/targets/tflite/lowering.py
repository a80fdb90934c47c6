"""The exact rewrites that TFLite wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_max_pooling import adaptive_max_pooling
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.ceil_average_pooling import ceil_average_pooling
from deploykit.graph.passes.ceil_max_pooling import ceil_max_pooling
from deploykit.graph.passes.constant_on_the_right import constant_on_the_right
from deploykit.graph.passes.convolution_in_blocks import convolution_in_blocks
from deploykit.graph.passes.global_average_pooling import global_average_pooling
from deploykit.graph.passes.grid_sample_by_gather import grid_sample_by_gather
from deploykit.graph.passes.keepdim_reductions import keepdim_reductions
from deploykit.graph.passes.nearest_by_index import nearest_by_index
from deploykit.graph.passes.pixel_shuffle_channels_last import pixel_shuffle_channels_last
from deploykit.graph.passes.plain_transposed_convolution import plain_transposed_convolution
from deploykit.graph.passes.prelu_as_leaky_relu import prelu_as_leaky_relu
from deploykit.graph.passes.resize_as_products import resize_as_products
from deploykit.graph.passes.transposed_convolution_by_phases import transposed_convolution_by_phases

# Rewrites of the file itself, by name: targets/tflite/rewriting.py has them.
ON_FILES: tuple[str, ...] = (
    "prelu_operator",
    "depth_to_space_operator",
    "transpose_pairs",
    "constants_along_axes",
)

# What LiteRT is faster with, as deploykit/targets/lowering_costs.py has it measured.
FORMS: tuple[Pass, ...] = (
    prelu_as_leaky_relu,
    convolution_in_blocks,
    transposed_convolution_by_phases,
    pixel_shuffle_channels_last,
)
# What its converter lacks.
PASSES: tuple[Pass, ...] = (
    global_average_pooling,
    adaptive_pooling,
    adaptive_max_pooling,
    ceil_max_pooling,
    ceil_average_pooling,
    plain_transposed_convolution,
    nearest_by_index,
    resize_as_products,
    grid_sample_by_gather,
    keepdim_reductions,
    constant_on_the_right,
)
