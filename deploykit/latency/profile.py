"""Time by operation: which PyTorch modules each operation of a file computes, the worst first.

A converter keeps the name of a value of the network's graph in that of the tensor, alone or among others. What a
runtime fused into one operation are the values between the tensors that it takes and those that it makes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deploykit.latency_records import OperationTime

# What runtimes and converters put between the names of values, before one and behind it.
_SEPARATORS = (";", ":", "/")
_BEFORE = "node_"
_OUTPUT_NUMBER = re.compile(r"__\d+$")
# These copy a value into another order.
_COPIES = ("ReorderInput", "ReorderOutput")


@dataclass(frozen=True)
class GraphValue:
    """One value of the network's graph: the modules that it is computed by, and the values that it is computed from.

    ``name`` is its own where it is known by several: an input or output also has that of the file.
    """

    name: str
    modules: tuple[str, ...]
    reads: tuple[str, ...]


Values = Mapping[str, GraphValue]


def with_modules(operations: Sequence[OperationTime], values: Values) -> tuple[OperationTime, ...]:
    """Return ``operations``, in the order of execution, with the modules that they compute, the longest time first.

    An operation whose tensors have no name of a value stays without modules, and one that takes such a tensor has
    those of what it makes alone.
    """
    known = _known(operations, values)
    named = (one if one.modules else replace(one, modules=_modules(one, values, known)) for one in operations)
    return tuple(sorted(named, key=lambda one: -one.seconds))


def _known(operations: Sequence[OperationTime], values: Values) -> dict[str, list[str]]:
    """Return tensor → the values that it stands for, by its own name, by that of its operation, or as a copy."""
    known: dict[str, list[str]] = {}
    for one in operations:
        for tensor in one.reads:
            known.setdefault(tensor, values_in(tensor, values))
        copy = one.operation in _COPIES and len(one.reads) == 1
        for tensor in one.values:
            found = values_in(tensor, values)
            if not found and len(one.values) == 1:
                found = known[one.reads[0]] if copy else values_in(one.name, values)
            known[tensor] = found
            if copy and found and not known[one.reads[0]]:
                known[one.reads[0]] = found
    return known


def _modules(operation: OperationTime, values: Values, known: Mapping[str, list[str]]) -> tuple[str, ...]:
    if operation.operation in _COPIES:
        return ()
    made = [value for tensor in operation.values for value in known[tensor]] or values_in(operation.name, values)
    taken = [known[tensor] for tensor in operation.reads]
    if not taken or not all(taken):
        return _joined(made, values)
    return _joined(_between(made, {value for one in taken for value in one}, values), values)


def _between(made: Sequence[str], taken: set[str], values: Values) -> list[str]:
    """Return ``made`` and the values that lead from ``taken`` to them, as far as all paths end there; else ``made``."""
    found: dict[str, None] = {}
    pending = list(made)
    while pending:
        value = pending.pop()
        if value in taken and value not in made:
            continue
        if not values[value].reads:
            return list(made)
        found[value] = None
        pending.extend(read for read in values[value].reads if read not in found)
    return [value for value in values if value in found]


def _joined(names: Sequence[str], values: Values) -> tuple[str, ...]:
    return tuple(dict.fromkeys(module for name in names for module in values[name].modules))


def values_in(name: str, values: Values) -> list[str]:
    """Return the values that the ``name`` of a tensor says it is made of."""
    parts = [name]
    for separator in _SEPARATORS:
        parts = [piece for part in parts for piece in part.split(separator)]
    plain = [_OUTPUT_NUMBER.sub("", part) for part in parts]
    candidates = (part if part in values else part.removeprefix(_BEFORE) for part in plain)
    return [values[value].name for part in candidates if (value := _longest_start(part, values))]


def _longest_start(text: str, values: Values) -> str:
    """Return the longest value of ``values`` that ``text`` is, or begins with before an underscore.

    ``conv2d_7`` is another value than ``conv2d``: a number at the end is never left out.
    """
    while text:
        if text in values:
            return text
        text, _, last = text.rpartition("_")
        if last.isdecimal():
            return ""
    return ""
