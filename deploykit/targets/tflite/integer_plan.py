"""Which operations of a float TFLite file are computed in integers, and which of their activations share one range."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from deploykit.errors import TargetError
from deploykit.targets.quantized import KEPT, LeftInFloat, Range
from deploykit.targets.tflite.flatbuffer import read_model
from deploykit.targets.tflite.integer_kernels import KERNELS, SLOW, Kernel
from deploykit.targets.tflite.wiring import Wiring, read_wiring
from deploykit.vocab import Precision

NO_KERNEL = "LiteRT has no integer kernel for {}"
SLOWER = "LiteRT's integer kernel for {} is slower than its float one"
NARROW = "LiteRT's kernel for {} takes no 16-bit activations"
COMPUTED_WEIGHTS = "its weights are computed"
COORDINATES = "it computes places that a sampling reads"
_ROUNDS = ("FLOOR", "CEIL", "ROUND", "CAST")


@dataclass(frozen=True)
class FloatFile:
    """A float file as objects and as wiring: ``names`` are those of ``TracedValue``, inputs named by the signature."""

    path: Path
    model: Any
    wiring: Wiring
    names: tuple[str, ...]
    constants: frozenset[int]

    @property
    def graph(self) -> Any:
        """Return the one graph of the file."""
        return self.model.subgraphs[0]

    def is_float(self, index: int) -> bool:
        """Return whether the tensor holds float32."""
        return index >= 0 and int(self.graph.tensors[index].type) == schema.TensorType.FLOAT32

    def is_activation(self, index: int) -> bool:
        """Return whether the tensor is float32 and no constant."""
        return self.is_float(index) and index not in self.constants

    def values(self, index: int) -> Any:
        """Return a float32 constant in its shape."""
        tensor = self.graph.tensors[index]
        raw = bytes(self.model.buffers[tensor.buffer].data)
        return np.frombuffer(raw, np.float32).reshape([int(size) for size in tensor.shape])

    def activations(self, place: int) -> tuple[int, ...]:
        """Return the activations that the operation at ``place`` reads."""
        return tuple(index for index in self.wiring.operators[place].reads if self.is_activation(index))


def read_float(path: Path) -> FloatFile:
    """Return the float file at ``path``. Raises TargetError where it has more than one graph."""
    model, wiring = read_model(path), read_wiring(path)
    if len(model.subgraphs) != 1:
        raise TargetError(
            "A TFLite file with several graphs is not quantized.",
            where=str(path),
            found=f"{len(model.subgraphs)} graphs",
            expected="one graph: a network without branches or loops",
        )
    names = list(wiring.names)
    for name, index in wiring.inputs.items():
        names[index] = name
    constants = frozenset(
        index
        for index, tensor in enumerate(model.subgraphs[0].tensors)
        if (data := model.buffers[tensor.buffer].data) is not None and len(data)
    )
    return FloatFile(path, model, wiring, tuple(names), constants)


@dataclass(frozen=True)
class IntegerPlan:
    """``integer`` are the places of integer operations; ``left`` names what stays float though it is arithmetic.

    ``group`` is activation → the first activation of those that share its range; ``fixed`` are ranges that kernels fix.
    """

    integer: frozenset[int]
    left: tuple[LeftInFloat, ...]
    group: Mapping[int, int]
    fixed: Mapping[int, Range] = field(default_factory=dict)

    def shared(self) -> dict[int, tuple[int, ...]]:
        """Return first activation → all activations of one range, in order."""
        found: dict[int, list[int]] = {}
        for index in sorted(self.group):
            found.setdefault(self.group[index], []).append(index)
        return {first: tuple(members) for first, members in found.items()}


def takes_weights(file: FloatFile, place: int) -> bool:
    """Return whether the operation at ``place`` multiplies by stored weights."""
    operator = file.wiring.operators[place]
    kernel = KERNELS.get(operator.kind)
    if kernel is None or kernel.weights is None:
        return False
    weight = operator.reads[kernel.weights.weight]
    return weight in file.constants and file.is_float(weight)


def reason_for_float(file: FloatFile, place: int, precision: Precision, places: frozenset[int]) -> str:
    """Return why the arithmetic of the operation at ``place`` cannot be integers; empty where it can."""
    operator = file.wiring.operators[place]
    kernel = KERNELS.get(operator.kind)
    if kernel is None:
        return (SLOWER if operator.kind in SLOW else NO_KERNEL).format(operator.kind)
    if precision is Precision.W8A16 and not kernel.wide:
        return NARROW.format(operator.kind)
    if kernel.weights is not None and not takes_weights(file, place):
        return COMPUTED_WEIGHTS
    if kernel.weights is None and not places.isdisjoint((*operator.reads, *operator.makes)):
        return COORDINATES
    return ""


def coordinates(file: FloatFile) -> frozenset[int]:
    """Return the activations from which whole numbers are made, and these numbers: places that a sampling reads.

    A place of 8 bits in a row of 64 pixels is off by up to an eighth of a pixel, whatever the features are.
    """
    found: set[int] = set()
    for place in reversed(range(len(file.wiring.operators))):
        operator = file.wiring.operators[place]
        rounds = operator.kind in _ROUNDS and bool(file.activations(place))
        if rounds:
            found.update(index for index in operator.makes if file.is_activation(index))
        if rounds or (not takes_weights(file, place) and not found.isdisjoint(operator.makes)):
            found.update(file.activations(place))
    return frozenset(found - set(file.wiring.inputs.values()))


def plan(file: FloatFile, precision: Precision, kept: Collection[str]) -> IntegerPlan:
    """Return what is computed in integers where the operations that compute the values ``kept`` are not."""
    places, left = coordinates(file), []
    integer: set[int] = set()
    available = set(file.wiring.inputs.values())
    for place, operator in enumerate(file.wiring.operators):
        reads = file.activations(place)
        if not reads or not any(file.is_float(index) for index in operator.makes):
            continue
        name = file.names[operator.makes[0]]
        kernel = KERNELS.get(operator.kind)
        reason = reason_for_float(file, place, precision, places)
        reason = KEPT if any(file.names[index] in kept for index in operator.makes) else reason
        if reason:
            left.append(LeftInFloat(name, reason))
        elif kernel is not None and (not kernel.moves or available.issuperset(reads)):
            integer.add(place)
            available.update(operator.makes)
    return IntegerPlan(frozenset(integer), tuple(left), *_groups(file, integer))


def _groups(file: FloatFile, integer: Collection[int]) -> tuple[dict[int, int], dict[int, Range]]:
    parent: dict[int, int] = {}

    def first(index: int) -> int:
        parent.setdefault(index, index)
        while parent[index] != index:
            index = parent[index]
        return index

    fixed: dict[int, Range] = {}
    for place in sorted(integer):
        operator = file.wiring.operators[place]
        kernel: Kernel = KERNELS[operator.kind]
        touched = (*file.activations(place), *(index for index in operator.makes if file.is_float(index)))
        roots = [first(index) for index in touched]
        if kernel.same:
            for root in roots[1:]:
                one, other = first(roots[0]), first(root)
                parent[max(one, other)] = min(one, other)
        if kernel.makes is not None:
            fixed[operator.makes[0]] = kernel.makes
    return {index: first(index) for index in parent}, fixed
