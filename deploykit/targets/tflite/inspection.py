"""Read what a TFLite file holds: its flatbuffer as it is on disk, nothing run."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import Kind, Operation
from deploykit.targets.contents import FileContents, FileTensor, sum_by_dtype
from deploykit.targets.tflite.metadata import NAME
from deploykit.vocab import Target

_IDENTIFIER = b"TFL3"
_NAMES = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
_DTYPES = {value: name.lower() for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
_MOVES = {
    *("RESHAPE", "TRANSPOSE", "CONCATENATION", "SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "SQUEEZE", "EXPAND_DIMS"),
    *("PACK", "UNPACK", "PAD", "PADV2", "MIRROR_PAD", "GATHER", "GATHER_ND", "TILE", "SHAPE", "BROADCAST_TO", "CAST"),
    *("DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "BATCH_TO_SPACE_ND", "SPACE_TO_BATCH_ND", "SELECT", "SELECT_V2", "FILL"),
    *("RANGE", "REVERSE_V2", "SCATTER_ND", "ZEROS_LIKE", "EMBEDDING_LOOKUP", "DYNAMIC_UPDATE_SLICE", "WHERE"),
}
_QUANTIZED = ("QUANTIZE", "DEQUANTIZE", "FAKE_QUANT")
# Operation → its kind, the positions of image and weight among its inputs, and the axis of the weight that has the
# channels of the side where the kernel is applied.
_KERNELS = {
    "CONV_2D": (Kind.CONVOLUTION, 0, 1, 0),
    "DEPTHWISE_CONV_2D": (Kind.CONVOLUTION, 0, 1, -1),
    "CONV_3D": (Kind.CONVOLUTION, 0, 1, -1),
    "TRANSPOSE_CONV": (Kind.TRANSPOSED_CONVOLUTION, 2, 1, -1),
    "CONV_3D_TRANSPOSE": (Kind.TRANSPOSED_CONVOLUTION, 2, 1, -1),
    "FULLY_CONNECTED": (Kind.LINEAR, 0, 1, -1),
}
# They multiply, and how often does not follow from the shapes of their tensors, or it is not in the file.
_UNKNOWN = ("LSTM", "RNN", "SVDF", "IF", "WHILE", "CALL", "CUSTOM", "STABLEHLO")


def read_contents(path: Path) -> FileContents:
    """Return what the TFLite file at ``path`` holds. Raises ArtifactError where it is none or damaged."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from error
    if raw[4:8] != _IDENTIFIER:
        raise _refused(path, f"{len(raw)} bytes without the identifier {_IDENTIFIER.decode()}")
    try:
        return _contents(path, raw)
    except (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        # A damaged flatbuffer leads anywhere in the file or out of it.
        raise _refused(path, f"{type(error).__name__}: {error}") from error


def _refused(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        "The file is no TFLite model, or it is damaged.",
        where=str(path),
        found=found[:300],
        expected="a TFLite flatbuffer",
        next_step="export or download it again",
    )


@dataclass(frozen=True)
class _Tensor:
    name: str
    shape: tuple[int | str, ...]
    dtype: str
    buffer: int
    constant_bytes: int
    scaled: bool

    def values(self) -> int:
        """Return the number of values; 0 where a size is not fixed."""
        return math.prod(size if isinstance(size, int) else 0 for size in self.shape)


def _contents(path: Path, raw: bytes) -> FileContents:
    model = schema.Model.GetRootAs(raw)
    graphs = [model.Subgraphs(index) for index in range(model.SubgraphsLength())]
    if not graphs:
        raise ValueError("no graph")
    tensors = [[_tensor(model, graph.Tensors(i)) for i in range(graph.TensorsLength())] for graph in graphs]
    work = [
        operation
        for number, (graph, own) in enumerate(zip(graphs, tensors, strict=True))
        for operation in _operations(model, graph, own, nested=number > 0)
    ]
    operations = Counter(operation.name for operation in work)
    quantized = Counter({name: count for name, count in operations.items() if name in _QUANTIZED})
    quantized.update(f"{one.dtype} tensors with scales" for own in tensors for one in own if one.scaled)
    # Tensors with the same values share one buffer.
    constants = {one.buffer: one for own in tensors for one in own if one.constant_bytes}
    made = [own[i] for graph, own in zip(graphs, tensors, strict=True) for i in _made(graph)]
    metadata, names = _metadata(model), _signature(model)
    inputs, outputs = (
        tuple(_declared(tensors[0][i], names.get(i), kind, metadata) for i in _indices(found))
        for kind, found in (("input", graphs[0].InputsAsNumpy()), ("output", graphs[0].OutputsAsNumpy()))
    )
    return FileContents(
        target=Target.TFLITE,
        path=path,
        size_bytes=len(raw),
        versions={"schema": str(model.Version()), **_runtime_version(model)},
        minimum_os=None,
        inputs=inputs,
        outputs=outputs,
        operations=dict(operations.most_common()),
        transposes=operations["TRANSPOSE"],
        quantized=dict(quantized.most_common()),
        weights=sum_by_dtype((one.dtype, one.values(), one.constant_bytes) for one in constants.values()),
        computed=dict(Counter(tensor.dtype for tensor in made).most_common()),
        work=tuple(work),
        metadata={key: text for key, text in metadata.items() if not key.startswith(("input.", "output."))},
        notes=(f"{len(graphs)} graphs; inputs and outputs are those of the first",) if len(graphs) > 1 else (),
    )


def _tensor(model: Any, tensor: Any) -> _Tensor:
    buffer = model.Buffers(tensor.Buffer())
    # Large constants lie behind the flatbuffer, at an offset.
    size = int(buffer.DataLength() or (buffer.Size() if buffer.Offset() > 1 else 0))
    scales = tensor.Quantization()
    stated = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
    return _Tensor(
        _text(tensor.Name()),
        tuple("?" if size < 0 else size for size in _indices(stated)),
        _DTYPES.get(tensor.Type(), f"type {tensor.Type()}"),
        int(tensor.Buffer()),
        size,
        scales is not None and scales.ScaleLength() > 0,
    )


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def _indices(found: Any) -> tuple[int, ...]:
    # The generated reader returns 0 for a vector that the file leaves out.
    return tuple(int(value) for value in np.atleast_1d(found)) if isinstance(found, np.ndarray) else ()


def _made(graph: Any) -> Iterator[int]:
    for index in range(graph.OperatorsLength()):
        yield from (i for i in _indices(graph.Operators(index).OutputsAsNumpy()) if i >= 0)


def _operations(model: Any, graph: Any, tensors: list[_Tensor], *, nested: bool) -> Iterator[Operation]:
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        code = model.OperatorCodes(operator.OpcodeIndex())
        # Files from before the code had 32 bits have it in the old field alone, some new ones in the new field alone.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        kind = _NAMES.get(number, f"operation {number}")
        name = f"CUSTOM {_text(code.CustomCode())}" if kind == "CUSTOM" else kind
        read, made = (
            [tensors[i] if i >= 0 else None for i in _indices(found)]
            for found in (operator.InputsAsNumpy(), operator.OutputsAsNumpy())
        )
        operation = _operation(kind, name, read, made[0] if made else None, operator)
        # How often the graph of a loop or a branch runs is not in the file.
        yield replace(operation, kind=Kind.UNKNOWN) if nested and operation.kernel else operation


def _operation(kind: str, name: str, read: list[_Tensor | None], made: _Tensor | None, operator: Any) -> Operation:
    first = read[0] if read else None
    outputs = made.values() if made else 0
    plain = Operation(name, Kind.OTHER, made.name if made else "", first.values() if first else 0, outputs)
    if kind in _MOVES:
        return replace(plain, kind=Kind.MOVE)
    if kind == "BATCH_MATMUL" and first and plain.inputs * outputs:
        inner = first.shape[-2 if _is_transposed(operator) else -1]
        return replace(plain, kind=Kind.MATRIX_PRODUCT, kernel=int(inner), positions=outputs)
    if kind not in _KERNELS:
        known = kind in _NAMES.values() and not any(word in kind for word in _UNKNOWN) and kind != "BATCH_MATMUL"
        return plain if known else replace(plain, kind=Kind.UNKNOWN)
    role, image_at, weight_at, channels_at = _KERNELS[kind]
    image, weight = (read[at] if at < len(read) else None for at in (image_at, weight_at))
    if image is None or weight is None or not image.values() * weight.values() * outputs:
        return replace(plain, kind=Kind.UNKNOWN)
    applied = outputs if role is Kind.CONVOLUTION else image.values()
    return replace(
        plain,
        kind=role,
        inputs=image.values(),
        kernel=weight.values(),
        positions=applied // int(weight.shape[channels_at]),
    )


def _is_transposed(operator: Any) -> bool:
    table = operator.BuiltinOptions()
    if table is None:
        return False
    options = schema.BatchMatMulOptions()
    options.Init(table.Bytes, table.Pos)
    return bool(options.AdjX())


def _signature(model: Any) -> dict[int, str]:
    """Return index of a tensor → the name that the first signature gives it."""
    if not model.SignatureDefsLength():
        return {}
    signature = model.SignatureDefs(0)
    entries = (
        *(signature.Inputs(index) for index in range(signature.InputsLength())),
        *(signature.Outputs(index) for index in range(signature.OutputsLength())),
    )
    return {int(entry.TensorIndex()): _text(entry.Name()) for entry in entries}


def _declared(tensor: _Tensor, name: str | None, kind: str, metadata: dict[str, str]) -> FileTensor:
    given = name or tensor.name
    return FileTensor(given, tensor.shape, tensor.dtype, meaning=metadata.get(f"{kind}.{given}", ""))


def _metadata(model: Any) -> dict[str, str]:
    """Return the description, and what deploykit wrote into the file."""
    found = {"description": _text(model.Description())} if model.Description() else {}
    raw = _buffers(model).get(NAME)
    return {**found, **{str(key): str(value) for key, value in (json.loads(raw) if raw else {}).items()}}


def _runtime_version(model: Any) -> dict[str, str]:
    stated = _buffers(model).get("min_runtime_version", b"").rstrip(b"\0")
    return {"oldest runtime": _text(stated)} if stated else {}


def _buffers(model: Any) -> dict[str, bytes]:
    entries = [model.Metadata(index) for index in range(model.MetadataLength())]
    return {_text(entry.Name()): _bytes_of(model.Buffers(entry.Buffer())) for entry in entries}


def _bytes_of(buffer: Any) -> bytes:
    return bytes(buffer.DataAsNumpy().tobytes()) if buffer.DataLength() else b""
