"""The exact rewrites that ONNX wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling

PASSES: tuple[Pass, ...] = (adaptive_pooling,)
