"""The operations that coreai-torch has a lowering for, and how the others are taken apart."""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Callable
from typing import Any

import torch

from deploykit.targets.coverage import Coverage

with warnings.catch_warnings():
    # It warns of a PyTorch whose version carries the name of a build.
    warnings.simplefilter("ignore")
    import coreai_torch
    from coreai_torch._aten_to_core import _aten_to_core_resolver


def read() -> Coverage:
    """Return the converter's table of lowerings, and the decompositions that go before it."""
    version = importlib.metadata.version("coreai-torch")
    return Coverage(f"coreai-torch {version}", _takes, decompositions())


def _takes(operation: torch._ops.OpOverload) -> bool:
    return str(operation).removeprefix("aten.") in _aten_to_core_resolver


def decompositions() -> dict[torch._ops.OperatorBase, Callable[..., Any]]:
    """Return the converter's own decompositions, and PyTorch's for every operation that it would refuse."""
    table: dict[torch._ops.OperatorBase, Callable[..., Any]] = coreai_torch.get_decomp_table()
    for operation, decomposition in torch._decomp.decomposition_table.items():
        if isinstance(operation, torch._ops.OpOverload) and operation not in table and not _takes(operation):
            table[operation] = decomposition
    return table
