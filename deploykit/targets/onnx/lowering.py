"""The exact rewrites that ONNX wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_max_pooling import adaptive_max_pooling
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.average_pooling_divisor import average_pooling_divisor
from deploykit.graph.passes.convolution_in_blocks import convolution_in_blocks
from deploykit.graph.passes.hard_activations_by_clamp import hard_activations_by_clamp
from deploykit.graph.passes.pixel_shuffle_by_transposes import pixel_shuffle_by_transposes
from deploykit.graph.passes.pixel_shuffle_channels_last import wide_pixel_shuffle_channels_last
from deploykit.graph.passes.prelu_as_leaky_relu import prelu_as_leaky_relu
from deploykit.graph.passes.prelu_as_relu_sum import prelu_as_relu_sum
from deploykit.graph.passes.transposed_convolution_by_phases import overlapping_transposed_convolution_by_phases

# What ONNX Runtime is faster with, as deploykit/targets/lowering_costs.py has it measured.
FORMS: tuple[Pass, ...] = (
    prelu_as_relu_sum,
    convolution_in_blocks,
    overlapping_transposed_convolution_by_phases,
    wide_pixel_shuffle_channels_last,
    pixel_shuffle_by_transposes,
)
# Forms that come before these in files in single precision alone.
SINGLE_FORMS: tuple[Pass, ...] = (prelu_as_leaky_relu,)
# Further forms, for files in half precision alone.
HALF_FORMS: tuple[Pass, ...] = (hard_activations_by_clamp,)
# What its exporter or ONNX itself lacks.
PASSES: tuple[Pass, ...] = (adaptive_pooling, adaptive_max_pooling, average_pooling_divisor)
