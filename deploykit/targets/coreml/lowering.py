"""The exact rewrites that Core ML wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.average_pooling_divisor import average_pooling_divisor
from deploykit.graph.passes.circular_padding import circular_padding
from deploykit.graph.passes.gelu_by_tanh import gelu_by_tanh
from deploykit.graph.passes.pixel_unshuffle_as_convolution import pixel_unshuffle_as_convolution
from deploykit.graph.passes.prelu_on_vectors import prelu_on_vectors
from deploykit.graph.passes.reciprocal_as_division import reciprocal_as_division
from deploykit.graph.passes.resize_as_products import resize_as_products

PASSES: tuple[Pass, ...] = (
    prelu_on_vectors,
    adaptive_pooling,
    average_pooling_divisor,
    circular_padding,
    resize_as_products,
    gelu_by_tanh,
    pixel_unshuffle_as_convolution,
    reciprocal_as_division,
)
