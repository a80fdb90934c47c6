"""deploykit: a trained PyTorch vision checkpoint becomes verified ONNX, Core ML and TFLite files.

The calls below are those behind the commands. They are imported when first used, so that ``import deploykit`` and
``deploykit --help`` stay fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from deploykit.version import __version__

if TYPE_CHECKING:
    from deploykit.api import (
        bench,
        compare,
        evaluate,
        export,
        inspect,
        load,
        load_recipe,
        run,
        run_sequence,
        sensitivity,
        simplify,
        verify_artifact,
        verify_reparam,
    )

__all__ = [
    "__version__",
    "bench",
    "compare",
    "evaluate",
    "export",
    "inspect",
    "load",
    "load_recipe",
    "run",
    "run_sequence",
    "sensitivity",
    "simplify",
    "verify_artifact",
    "verify_reparam",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("deploykit.api"), name)
    raise AttributeError(f"module 'deploykit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
