"""Whether ONNX Runtime's products of uint8 and int8 are exact on this processor."""

from __future__ import annotations

import platform
from pathlib import Path

_X86 = ("x86_64", "amd64")
_EXACT = ("avx512_vnni", "avx_vnni")


def products_saturate(machine: str | None = None, processor: str | None = None) -> bool:
    """Return whether sums of two products of uint8 and int8 are cut off at 16 bits: on x86 without VNNI.

    ``machine`` and ``processor`` are those of this host unless given: its architecture, and what Linux says of it.
    Elsewhere than on Linux an x86 processor is taken for one without VNNI. Source: ONNX Runtime, session options,
    ``session.x64quantprecision``.
    """
    if (machine or platform.machine()).lower() not in _X86:
        return False
    if processor is None:
        described = Path("/proc/cpuinfo")
        processor = described.read_text("utf-8", "replace") if described.is_file() else ""
    words = set(processor.split())
    return words.isdisjoint(_EXACT)
