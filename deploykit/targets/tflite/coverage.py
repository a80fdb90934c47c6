"""The operations that litert-torch lowers."""

from __future__ import annotations

import importlib.metadata

from litert_torch import fx_infra
from litert_torch._convert.fx_passes.build_aten_composite_pass import _composite_builders
from litert_torch.backend import lowerings

from deploykit.targets.coverage import Coverage


def read() -> Coverage:
    """Return the registry of lowerings, and what is taken apart before: not what becomes one operation of TFLite."""
    decompositions = {**fx_infra.decomp.pre_convert_decomp(), **fx_infra.decomp.pre_lower_decomp()}
    return Coverage(
        f"litert-torch {importlib.metadata.version('litert-torch')}",
        lambda operation: operation in _composite_builders or lowerings.lookup(operation) is not None,
        {operation: rule for operation, rule in decompositions.items() if operation not in _composite_builders},
    )
