"""The exact rewrites that ONNX wants on the graph: none is needed, the exporter takes every captured form."""

from __future__ import annotations

from deploykit.graph.graph import Pass

PASSES: tuple[Pass, ...] = ()
