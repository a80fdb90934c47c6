"""Tables that torch makes anew for every export, from what is registered alone: made once in a process of tests.

They take a quarter of the capture of a small network and a third of its ONNX export. What comes out is the same.
"""

from __future__ import annotations

import importlib.util
from functools import cache

import pytest
import torch
from torch.export import exported_program


def keep_tables(patch: pytest.MonkeyPatch) -> None:
    """Let torch keep its table of composite operators, while no more are registered, and that of ONNX's functions."""
    collect = exported_program._collect_all_valid_cia_ops
    composite = cache(lambda registered, namespaces: collect())

    def composite_operators() -> set[object]:
        registered = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
        return composite(len(registered), tuple(torch.ops._dir))

    patch.setattr(exported_program, "_collect_all_valid_cia_ops", composite_operators)
    if importlib.util.find_spec("onnxscript") is not None:
        from torch.onnx._internal.exporter import _registration

        functions = _registration.onnxscript_apis
        patch.setattr(functions, "get_torchlib_ops", cache(functions.get_torchlib_ops))
