"""Which ATen operations an installed converter takes, as the converter itself says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Coverage:
    """The registry of one converter: ``takes`` an operation, after it has taken apart those in ``decompositions``."""

    converter: str
    takes: Callable[[torch._ops.OpOverload], bool]
    decompositions: Mapping[Any, Callable[..., Any]]
