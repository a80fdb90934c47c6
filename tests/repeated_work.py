"""Tables that torch makes anew for every export, from what is registered alone: made once in a process of tests.

They take a quarter of the capture of a small network and a third of its ONNX export. What comes out is the same.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest
import torch
from torch.export import exported_program

_COLLECT = "_collect_all_valid_cia_ops"
_REGISTERED = "_dispatch_get_registrations_for_dispatch_key"
_FUNCTIONS = "get_torchlib_ops"


def keep_tables(patch: pytest.MonkeyPatch) -> None:
    """Let torch keep its table of composite operators, while no more are registered, and that of ONNX's functions.

    A version of torch that has no such functions makes its tables as it likes.
    """
    collect = getattr(exported_program, _COLLECT, None)
    count = getattr(torch._C, _REGISTERED, None)
    if collect is not None and count is not None:
        composite = cache(lambda registered, namespaces: collect())

        def composite_operators() -> set[object]:
            return composite(len(count("CompositeImplicitAutograd")), tuple(torch.ops._dir))

        patch.setattr(exported_program, _COLLECT, composite_operators)
    if importlib.util.find_spec("onnxscript") is not None:
        from torch.onnx._internal.exporter import _registration

        functions = getattr(_registration, "onnxscript_apis", None)
        if hasattr(functions, _FUNCTIONS):
            patch.setattr(functions, _FUNCTIONS, cache(getattr(functions, _FUNCTIONS)))
