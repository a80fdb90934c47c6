"""Exact rewrites of the TFLite file itself: what cannot be said in ATen, because the converter takes it apart."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ai_edge_litert import schema_py_generated as schema

from deploykit.graph.graph import Recorder
from deploykit.graph.passes.split_constant_sums import FEWEST, repeated_parts
from deploykit.records import PassReport
from deploykit.targets.tflite.flatbuffer import drop_unread, operator_code, read_model, write_model

_B = schema.BuiltinOperator


def rewrite(path: Path, names: Sequence[str]) -> tuple[PassReport, ...]:
    """Rewrite the file at ``path`` by those of ``PASSES`` in ``names``; return one report each."""
    chosen = [one for one in PASSES if one.__name__ in names]
    if not chosen:
        return ()
    model = read_model(path)
    reports = []
    for one in chosen:
        recorder = Recorder(one.__name__)
        for graph in model.subgraphs:
            one(model, graph, recorder)
        reports.append(recorder.report())
    drop_unread(model)
    write_model(model, path)
    return tuple(reports)


def prelu_operator(model: Any, graph: Any, recorder: Recorder) -> None:
    """PReLU, which the converter writes as four operations, becomes TFLite's own PRELU.

    Algebra: ``relu(x) - a · relu(-x) = prelu(x, a)`` for any slope a.
    """
    readers = _readers(graph)
    made_by = {int(t): op for op in graph.operators for t in op.outputs}
    code: int | None = None
    gone: set[int] = set()
    for op in list(graph.operators):
        found = _prelu(model, graph, op, made_by, readers)
        if found is None:
            continue
        x, slopes, parts = found
        code = operator_code(model, _B.PRELU) if code is None else code
        op.opcodeIndex, op.inputs = code, np.array([x, _slopes(model, graph, slopes)], np.int32)
        op.builtinOptionsType, op.builtinOptions = schema.BuiltinOptions.NONE, None
        gone.update(id(part) for part in parts)
        recorder.fired((_text(graph.tensors[int(op.outputs[0])].name),), "one PRELU instead of RELU, two MUL and SUB")
    graph.operators = [op for op in graph.operators if id(op) not in gone]


def depth_to_space_operator(model: Any, graph: Any, recorder: Recorder) -> None:
    """A pixel shuffle, written as a transpose between two reshapes, becomes TFLite's own DEPTH_TO_SPACE.

    Algebra: (N·H, W, s, s·C) transposed to (N·H, s, W, s·C) and read as (N, s·H, s·W, C) puts channel ``(i·s + j)·C +
    c`` of pixel (h, w) in channel c of pixel (s·h + i, s·w + j), which is what DEPTH_TO_SPACE does.
    """
    readers = _readers(graph)
    made_by = {int(t): op for op in graph.operators for t in op.outputs}
    gone: set[int] = set()
    for op in list(graph.operators):
        found = _shuffle(model, graph, op, made_by, readers)
        if found is None:
            continue
        x, factor, parts = found
        op.opcodeIndex, op.inputs = operator_code(model, _B.DEPTH_TO_SPACE), np.array([x], np.int32)
        op.builtinOptionsType = schema.BuiltinOptions.DepthToSpaceOptions
        op.builtinOptions = schema.DepthToSpaceOptionsT()
        op.builtinOptions.blockSize = factor
        gone.update(id(part) for part in parts)
        recorder.fired((_text(graph.tensors[int(op.outputs[0])].name),), "one DEPTH_TO_SPACE for three operations")
    graph.operators = [op for op in graph.operators if id(op) not in gone]


def transpose_pairs(model: Any, graph: Any, recorder: Recorder) -> None:
    """Two transposes of which the second undoes the first are passed by: what reads the second reads before both.

    The converter leaves such pairs where a value is wanted in both layouts. What a file returns keeps its name.
    """
    made_by = {int(t): op for op in graph.operators for t in op.outputs}
    returned = {int(t) for t in graph.outputs}
    for op in list(graph.operators):
        first = made_by.get(int(op.inputs[0])) if _kind(model, op) == _B.TRANSPOSE else None
        if first is None or _kind(model, first) != _B.TRANSPOSE or int(op.outputs[0]) in returned:
            continue
        inner, outer = (_integers(model, graph, int(one.inputs[1])) for one in (first, op))
        if inner is None or outer is None or [inner[axis] for axis in outer] != list(range(len(outer))):
            continue
        for reader in graph.operators:
            reader.inputs = np.array(
                [int(first.inputs[0]) if int(t) == int(op.outputs[0]) else int(t) for t in reader.inputs], np.int32
            )
        recorder.fired((_text(graph.tensors[int(op.outputs[0])].name),), "the value before two transposes")
    read = _readers(graph)
    while unread := [op for op in graph.operators if _kind(model, op) == _B.TRANSPOSE and _unread(op, read)]:
        graph.operators = [op for op in graph.operators if all(op is not one for one in unread)]
        read = _readers(graph)


def constants_along_axes(model: Any, graph: Any, recorder: Recorder) -> None:
    """A large constant that is added is stored as the rows and columns it repeats: one ADD for each.

    ``split_constant_sums`` has the algebra and does this to the graph; the converter sums its parts up again.
    """
    made: dict[int, list[int]] = {}
    for op in list(graph.operators):
        values = [_constant(model, graph, int(index)) for index in op.inputs] if _kind(model, op) == _B.ADD else []
        fixed = [place for place, value in enumerate(values) if value is not None and value.size >= FEWEST]
        if len(fixed) != 1:
            continue
        x, whole, end = int(op.inputs[1 - fixed[0]]), int(op.inputs[fixed[0]]), int(op.outputs[0])
        parts = repeated_parts(torch.tensor(values[fixed[0]]).reshape(_shape(graph, whole)))
        if parts is None or _shape(graph, x) != _shape(graph, end):
            continue
        name = _text(graph.tensors[whole].name)
        if whole not in made:
            made[whole] = [_add_constant(model, graph, f"{name}/{at}", one.numpy()) for at, one in enumerate(parts)]
        for place, index in enumerate(made[whole][:-1]):
            first = copy.deepcopy(op)
            first.builtinOptionsType, first.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
            partial = copy.deepcopy(graph.tensors[end])
            partial.name = f"{_text(partial.name)}/sum_{place}".encode()
            graph.tensors.append(partial)
            first.inputs, first.outputs = np.array([x, index], np.int32), np.array([len(graph.tensors) - 1], np.int32)
            # By identity: operations are compared by nothing else.
            graph.operators.insert(next(at for at, one in enumerate(graph.operators) if one is op), first)
            x = len(graph.tensors) - 1
        op.inputs = np.array([x, made[whole][-1]], np.int32)
        kept = sum(part.numel() for part in parts)
        recorder.fired((_text(graph.tensors[end].name),), f"{values[fixed[0]].size} numbers as {kept}")


PASSES: tuple[Callable[[Any, Any, Recorder], None], ...] = (
    prelu_operator,
    depth_to_space_operator,
    transpose_pairs,
    constants_along_axes,
)


def _unread(op: Any, readers: dict[int, int]) -> bool:
    return not any(readers.get(int(index), 0) for index in op.outputs)


def _shuffle(
    model: Any, graph: Any, op: Any, made_by: dict[int, Any], readers: dict[int, int]
) -> tuple[int, int, list[Any]] | None:
    """Return x, the factor, and the operations that only the pixel shuffle ending in ``op`` needs."""
    if _kind(model, op) != _B.RESHAPE:
        return None
    transpose = made_by.get(int(op.inputs[0]))
    if transpose is None or _kind(model, transpose) != _B.TRANSPOSE:
        return None
    first = made_by.get(int(transpose.inputs[0]))
    if first is None or _kind(model, first) != _B.RESHAPE:
        return None
    before, lines, after = (_shape(graph, index) for index in (first.inputs[0], first.outputs[0], op.outputs[0]))
    if not len(before) == len(lines) == len(after) == 4:
        return None
    count, height, width, channels = before
    factor = lines[2]
    fits = (
        _integers(model, graph, int(transpose.inputs[1])) == [0, 2, 1, 3]
        and channels % (factor * factor) == 0
        and lines == (count * height, width, factor, channels // factor)
        and after == (count, factor * height, factor * width, channels // (factor * factor))
    )
    single = all(readers.get(int(part.outputs[0]), 0) == 1 for part in (first, transpose))
    return (int(first.inputs[0]), factor, [first, transpose]) if fits and factor > 1 and single else None


def _shape(graph: Any, index: int) -> tuple[int, ...]:
    shape = graph.tensors[int(index)].shape
    return () if shape is None else tuple(int(size) for size in shape)


def _integers(model: Any, graph: Any, index: int) -> list[int] | None:
    """Return the values of an int32 constant, or None for anything else."""
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0 or tensor.type != schema.TensorType.INT32:
        return None
    return [int(value) for value in np.frombuffer(bytes(data), np.int32)]


def _prelu(
    model: Any, graph: Any, op: Any, made_by: dict[int, Any], readers: dict[int, int]
) -> tuple[int, int, list[Any]] | None:
    """Return x, the tensor of the slopes, and the operations that only the PReLU ending in ``op`` needs."""
    if _kind(model, op) != _B.SUB or _activation(op):
        return None
    positive, scaled = (made_by.get(int(index)) for index in op.inputs)
    if positive is None or scaled is None or _kind(model, positive) != _B.RELU or _kind(model, scaled) != _B.MUL:
        return None
    negative = made_by.get(int(scaled.inputs[0]))
    if negative is None or _kind(model, negative) != _B.MUL or _activation(scaled):
        return None
    x, slopes = int(positive.inputs[0]), int(scaled.inputs[1])
    shape, factor = graph.tensors[slopes].shape, _constant(model, graph, int(negative.inputs[1]))
    fits = (
        int(negative.inputs[0]) == x
        and _activation(negative) == schema.ActivationFunctionType.RELU
        and factor is not None
        and factor.size == 1
        and float(factor.reshape(-1)[0]) == -1.0
        and _constant(model, graph, slopes) is not None
        and len(shape) == 4
        and all(int(size) == 1 for size in shape[:-1])
        and int(shape[-1]) == int(graph.tensors[x].shape[-1])
    )
    single = all(readers.get(int(part.outputs[0]), 0) == 1 for part in (positive, scaled, negative))
    return (x, slopes, [positive, scaled, negative]) if fits and single else None


def _slopes(model: Any, graph: Any, slopes: int) -> int:
    """Return a tensor (1, 1, C) of the slopes: PRELU shares them along height and width."""
    values = _constant(model, graph, slopes)
    return _add_constant(model, graph, _text(graph.tensors[slopes].name) + "/slopes", values.reshape(1, 1, -1))


def _add_constant(model: Any, graph: Any, name: str, values: np.ndarray) -> int:
    """Return the place of a new float32 tensor that holds ``values``."""
    tensor = schema.TensorT()
    tensor.name, tensor.type = name.encode(), schema.TensorType.FLOAT32
    tensor.shape = np.array(values.shape, np.int32)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)
    tensor.buffer = len(model.buffers)
    model.buffers.append(buffer)
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _readers(graph: Any) -> dict[int, int]:
    """Return tensor → how many operations and outputs of the graph read it."""
    found: dict[int, int] = {}
    for index in [*(int(t) for op in graph.operators for t in op.inputs), *(int(t) for t in graph.outputs)]:
        found[index] = found.get(index, 0) + 1
    return found


def _kind(model: Any, op: Any) -> int:
    code = model.operatorCodes[op.opcodeIndex]
    return int(max(code.builtinCode, code.deprecatedBuiltinCode))


def _activation(op: Any) -> int:
    return int(getattr(op.builtinOptions, "fusedActivationFunction", 0) or 0)


def _constant(model: Any, graph: Any, index: int) -> Any:
    """Return the values of a float32 constant, or None for what is computed."""
    tensor = graph.tensors[index]
    data = model.buffers[tensor.buffer].data
    if data is None or len(data) == 0 or tensor.type != schema.TensorType.FLOAT32:
        return None
    return np.frombuffer(bytes(data), np.float32)


def _text(raw: bytes | str | None) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw)
