"""The operations that the PyTorch front-end of coremltools has a function for."""

from __future__ import annotations

import coremltools as ct
import torch
from coremltools.converters.mil.frontend.torch import ops as _ops  # noqa: F401 - importing it fills the registry
from coremltools.converters.mil.frontend.torch.torch_op_registry import _TORCH_OPS_REGISTRY

from deploykit.targets.coverage import Coverage


def read() -> Coverage:
    """Return the front-end's registry; it takes nothing apart."""
    return Coverage(f"coremltools {ct.__version__}", _takes, {})


def _takes(operation: torch._ops.OpOverload) -> bool:
    return _TORCH_OPS_REGISTRY.get_func(operation.__name__) is not None
