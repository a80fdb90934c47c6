"""The exact rewrites that TFLite wants on the graph."""

from __future__ import annotations

from deploykit.graph.graph import Pass
from deploykit.graph.passes.constant_on_the_right import constant_on_the_right
from deploykit.graph.passes.keepdim_reductions import keepdim_reductions

PASSES: tuple[Pass, ...] = (keepdim_reductions, constant_on_the_right)
