"""The exact rewrites that ONNX wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_max_pooling import adaptive_max_pooling
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.average_pooling_divisor import average_pooling_divisor

PASSES: tuple[Pass, ...] = (adaptive_pooling, adaptive_max_pooling, average_pooling_divisor)
