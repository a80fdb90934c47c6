"""The exact rewrites that Core ML wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling
from deploykit.graph.passes.prelu_on_vectors import prelu_on_vectors

PASSES: tuple[Pass, ...] = (prelu_on_vectors, adaptive_pooling)
