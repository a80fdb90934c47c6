"""Time by operation: which PyTorch modules each operation of a file computes, the worst first."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from deploykit.latency_records import OperationTime

# What runtimes and converters put between the names of values, before one and behind it.
_SEPARATORS = (";", ":", "/")
_BEFORE = "node_"
_OUTPUT_NUMBER = re.compile(r"__\d+$")


def with_modules(
    operations: tuple[OperationTime, ...], modules: Mapping[str, tuple[str, ...]]
) -> tuple[OperationTime, ...]:
    """Return ``operations`` with the modules that they compute, the longest time first.

    ``modules`` are those of each value of the network's graph. A converter keeps the name of a value in that of the
    tensor, alone or among others; where it did not, the operation stays without.
    """
    named = tuple(
        one if one.modules else replace(one, modules=modules_of((*one.values, one.name), modules)) for one in operations
    )
    return tuple(sorted(named, key=lambda one: -one.seconds))


def modules_of(names: tuple[str, ...], modules: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Return the modules of all values that ``names`` of tensors are made of, without repetition."""
    found: dict[str, None] = {}
    for name in names:
        for value in _values_in(name, modules):
            found.update(dict.fromkeys(modules[value]))
    return tuple(found)


def _values_in(name: str, modules: Mapping[str, tuple[str, ...]]) -> list[str]:
    parts = [name]
    for separator in _SEPARATORS:
        parts = [piece for part in parts for piece in part.split(separator)]
    plain = [_OUTPUT_NUMBER.sub("", part) for part in parts]
    candidates = (part if part in modules else part.removeprefix(_BEFORE) for part in plain)
    return [value for part in candidates if (value := _longest_start(part, modules))]


def _longest_start(text: str, modules: Mapping[str, tuple[str, ...]]) -> str:
    """Return the longest value of ``modules`` that ``text`` is, or begins with before an underscore.

    ``conv2d_7`` is another value than ``conv2d``: a number at the end is never left out.
    """
    while text:
        if text in modules:
            return text
        text, _, last = text.rpartition("_")
        if last.isdecimal():
            return ""
    return ""
