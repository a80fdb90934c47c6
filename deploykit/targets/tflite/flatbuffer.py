"""A TFLite file as objects, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


class _SharingBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """A builder that writes equal vectors of numbers once: every layer has the zero points of its many channels."""

    def __init__(self) -> None:
        super().__init__(1024)
        self._written: dict[tuple[str, bytes], int] = {}

    def CreateNumpyVector(self, x: Any) -> int:  # noqa: N802
        key = (x.dtype.str, x.tobytes())
        if key not in self._written:
            self._written[key] = int(super().CreateNumpyVector(x))
        return self._written[key]


def read_model(path: Path) -> Any:
    """Return the file as objects, buffers that lie behind the flatbuffer taken into it."""
    raw = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(bytearray(raw), 0)
    for buffer in model.buffers:
        if buffer.offset > 1:
            buffer.data = np.frombuffer(raw, np.uint8, buffer.size, buffer.offset)
            buffer.offset = buffer.size = 0
    return model


def write_model(model: Any, path: Path) -> None:
    """Write ``model`` to ``path`` as one flatbuffer."""
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def write_shared(model: Any, path: Path) -> None:
    """Write ``model`` to ``path`` as one flatbuffer in which equal vectors of numbers are stored once."""
    builder = _SharingBuilder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def operator_code(model: Any, builtin: int) -> int:
    """Return the place of the operation ``builtin`` among the codes of ``model``, where it is from now on."""
    for place, code in enumerate(model.operatorCodes):
        if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def drop_unread(model: Any) -> None:
    """Leave out of the one graph of ``model`` the tensors that nothing reads or makes, and the buffers of these."""
    graph = model.subgraphs[0]
    used = {int(i) for op in graph.operators for i in (*op.inputs, *op.outputs) if i >= 0}
    used |= {int(i) for i in (*graph.inputs, *graph.outputs)}
    places = {old: new for new, old in enumerate(sorted(used))}
    graph.tensors = [graph.tensors[old] for old in sorted(used)]
    for op in graph.operators:
        op.inputs, op.outputs = (
            np.array([places.get(int(i), -1) for i in one], np.int32) for one in (op.inputs, op.outputs)
        )
    graph.inputs, graph.outputs = (
        np.array([places[int(i)] for i in one], np.int32) for one in (graph.inputs, graph.outputs)
    )
    for signature in model.signatureDefs or []:
        for entry in (*signature.inputs, *signature.outputs):
            entry.tensorIndex = places[int(entry.tensorIndex)]
    # Buffer 0 stands for no values.
    held = sorted({0, *(tensor.buffer for tensor in graph.tensors), *(entry.buffer for entry in model.metadata or [])})
    buffers = {old: new for new, old in enumerate(held)}
    model.buffers = [model.buffers[old] for old in held]
    for one in (*graph.tensors, *(model.metadata or [])):
        one.buffer = buffers[one.buffer]


def stored_bytes(model: Any) -> int:
    """Return the bytes of the constants of ``model`` with their scales; equal zero points are stored once."""
    graph = model.subgraphs[0]
    total, seen, zeros = 0, set(), set()
    for tensor in graph.tensors:
        data = model.buffers[tensor.buffer].data
        if data is None or not len(data):
            continue
        if tensor.buffer not in seen:
            seen.add(tensor.buffer)
            total += len(data)
        stated = tensor.quantization
        if stated is not None and stated.scale is not None and len(stated.scale):
            total += 4 * len(stated.scale)
            zeros.add(tuple(int(value) for value in stated.zeroPoint))
    return total + sum(8 * len(one) for one in zeros)
