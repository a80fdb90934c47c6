"""The operations that PyTorch's ONNX exporter has a function for."""

from __future__ import annotations

import torch
from torch.onnx._internal.exporter import _decomp, _registration

from deploykit.targets.coverage import Coverage


def read() -> Coverage:
    """Return the exporter's registry, and the decompositions for what is not in it."""
    registry = _registration.ONNXRegistry.from_torchlib()
    registered = _decomp.get_onnx_implemented_overloads(registry)
    return Coverage(
        f"torch {torch.__version__}",
        registry.is_registered,
        _decomp.create_onnx_friendly_decomposition_table(set(registered)),
    )
