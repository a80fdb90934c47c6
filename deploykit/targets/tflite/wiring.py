"""How the operations of a TFLite file are wired, and which of its tensors keep their channels last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_IMAGE_RANK = 4
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
# The format defines these on (N, H, W, C): positions of the images among their inputs; their first output is one.
_ON_IMAGES = {
    "CONV_2D": (0,),
    "DEPTHWISE_CONV_2D": (0,),
    "TRANSPOSE_CONV": (2,),
    "AVERAGE_POOL_2D": (0,),
    "MAX_POOL_2D": (0,),
    "L2_POOL_2D": (0,),
    "RESIZE_BILINEAR": (0,),
    "RESIZE_NEAREST_NEIGHBOR": (0,),
    "DEPTH_TO_SPACE": (0,),
    "SPACE_TO_DEPTH": (0,),
    "SPACE_TO_BATCH_ND": (0,),
    "BATCH_TO_SPACE_ND": (0,),
}
# These may give four axes of another meaning.
_REARRANGE = {"TRANSPOSE", "RESHAPE", "GATHER", "GATHER_ND", "BATCH_MATMUL", "PACK", "UNPACK", "EXPAND_DIMS", "SQUEEZE"}


@dataclass(frozen=True)
class Operator:
    """One operation: the indices of the tensors that it reads (constants among them) and makes."""

    kind: str
    reads: tuple[int, ...]
    makes: tuple[int, ...]


@dataclass(frozen=True)
class Wiring:
    """The graph of a file's first signature, or its first graph where it has none.

    ``inputs`` and ``outputs`` are name → index of a tensor, as the signature has them. ``constants`` are the values of
    small integer constants: permutations, for one.
    """

    subgraph: int
    signature: str | None
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    operators: tuple[Operator, ...]
    names: tuple[str, ...]
    ranks: tuple[int, ...]
    constants: Mapping[int, tuple[int, ...]]

    def computed(self) -> frozenset[int]:
        """Return the tensors whose values depend on an input."""
        varying = set(self.inputs.values())
        for operator in self.operators:
            if not varying.isdisjoint(operator.reads):
                varying.update(operator.makes)
        return frozenset(varying) - frozenset(self.inputs.values())

    def channels_last(self) -> frozenset[int]:
        """Return the tensors of four axes that are certainly (N, H, W, C).

        Operations on images fix the order of their tensors; it spreads along operations that keep the axes, and
        permutations between the two orders turn it round.
        """
        images = {index for operator in self.operators for index in self._images(operator)}
        order = dict.fromkeys(images, True)
        links: dict[int, list[tuple[int, bool]]] = {}
        for one, other, same in self._links():
            links.setdefault(one, []).append((other, same))
            links.setdefault(other, []).append((one, same))
        pending = list(order)
        while pending:
            tensor = pending.pop()
            for other, same in links.get(tensor, ()):
                if other not in order:
                    order[other] = order[tensor] is same
                    pending.append(other)
        return frozenset(tensor for tensor, last in order.items() if last)

    def _images(self, operator: Operator) -> Iterator[int]:
        places = _ON_IMAGES.get(operator.kind)
        if places is not None:
            found = (*(operator.reads[place] for place in places if place < len(operator.reads)), *operator.makes[:1])
            yield from (index for index in found if self.ranks[index] == _IMAGE_RANK)

    def _links(self) -> Iterator[tuple[int, int, bool]]:
        """Yield pairs of tensors whose orders of axes are the same, or turned round."""
        for operator in self.operators:
            if operator.kind == "TRANSPOSE":
                source, permutation = operator.reads
                if self.constants.get(permutation) in (_TO_LAST, _TO_FIRST):
                    yield source, operator.makes[0], False
            elif operator.kind not in _ON_IMAGES and operator.kind not in _REARRANGE:
                tensors = [i for i in (*operator.reads, *operator.makes) if i >= 0 and self.ranks[i] == _IMAGE_RANK]
                yield from ((tensors[0], other, True) for other in tensors[1:] if other not in self.constants)


def read_wiring(path: Path) -> Wiring:
    """Return how the TFLite file at ``path`` is wired. Raises whatever a damaged flatbuffer leads to."""
    model = schema.Model.GetRootAs(path.read_bytes())
    signature = model.SignatureDefs(0) if model.SignatureDefsLength() else None
    subgraph = int(signature.SubgraphIndex()) if signature else 0
    graph = model.Subgraphs(subgraph)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    names = _unique([(tensor.Name() or b"").decode(errors="replace") for tensor in tensors])
    if signature:
        given = {_text(e.Name()): int(e.TensorIndex()) for e in map(signature.Inputs, range(signature.InputsLength()))}
        made = {_text(e.Name()): int(e.TensorIndex()) for e in map(signature.Outputs, range(signature.OutputsLength()))}
    else:
        given = {_text(tensors[index].Name()): index for index in _indices(graph.InputsAsNumpy())}
        made = {_text(tensors[index].Name()): index for index in _indices(graph.OutputsAsNumpy())}
    return Wiring(
        subgraph=subgraph,
        signature=_text(signature.SignatureKey()) if signature else None,
        inputs=given,
        outputs=made,
        operators=tuple(_operator(model, graph.Operators(index)) for index in range(graph.OperatorsLength())),
        names=names,
        ranks=tuple(int(tensor.ShapeLength()) for tensor in tensors),
        constants=dict(_small_constants(model, tensors)),
    )


def _operator(model: Any, operator: Any) -> Operator:
    code = model.OperatorCodes(operator.OpcodeIndex())
    # Files from before the code had 32 bits have it in the old field alone, some new ones in the new field alone.
    number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    kind = _NAMES.get(number, f"operation {number}")
    kind = f"CUSTOM {_text(code.CustomCode())}" if kind == "CUSTOM" else kind
    return Operator(kind, _indices(operator.InputsAsNumpy()), _indices(operator.OutputsAsNumpy()))


def _small_constants(model: Any, tensors: list[Any]) -> Iterator[tuple[int, tuple[int, ...]]]:
    for index, tensor in enumerate(tensors):
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() == schema.TensorType.INT32 and 0 < buffer.DataLength() <= 4 * _IMAGE_RANK:
            yield index, tuple(int(value) for value in np.frombuffer(buffer.DataAsNumpy().tobytes(), "<i4"))


def _unique(names: list[str]) -> tuple[str, ...]:
    """Return ``names``, those that are empty or taken followed by their index."""
    seen: set[str] = set()
    found = []
    for index, name in enumerate(names):
        own = name if name and name not in seen else f"{name}#{index}"
        seen.add(own)
        found.append(own)
    return tuple(found)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def _indices(found: Any) -> tuple[int, ...]:
    # The generated reader returns 0 for a vector that the file leaves out.
    return tuple(int(value) for value in np.atleast_1d(found)) if isinstance(found, np.ndarray) else ()
