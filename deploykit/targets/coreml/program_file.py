"""The program of a Core ML package, open for change: its constants as arrays, and written again with new ones."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.converters.mil.backend.mil import helper
from coremltools.libmilstoragepython import _BlobStorageReader, _BlobStorageWriter
from coremltools.proto import MIL_pb2, Model_pb2

from deploykit.errors import ArtifactError
from deploykit.targets.base import Array
from deploykit.targets.contents import packed_bytes

_MODEL = Path("Data/com.apple.CoreML/model.mlmodel")
_WEIGHTS = Path("weights/weight.bin")
# Core ML keeps smaller tensors in the program itself, and before iOS 18 all but these.
_SMALLEST_IN_FILE = 10
_STORED = {"FLOAT32": "float", "FLOAT16": "fp16", "INT8": "int8", "UINT8": "uint8"}
_STORED_LATER = {
    **{"INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32"},
    **{"INT4": "int4", "UINT1": "uint1", "UINT2": "uint2", "UINT3": "uint3", "UINT4": "uint4", "UINT6": "uint6"},
}
_NUMBERS = {"FLOAT32": "float32", "FLOAT16": "float16", "INT8": "int8", "UINT8": "uint8"}
_FLOATS = ("FLOAT32", "FLOAT16")
_FRESH = "fresh"


class ProgramFile:
    """The main function of the package at ``path``.

    ``operations`` is what it does in order, protobuf messages that may be changed; ``save`` writes the package anew
    with them. Names, descriptions, image inputs and metadata stay as they are. Raises ArtifactError where ``path``
    is no package with one function, as ``export`` writes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._specification = Model_pb2.Model()
        try:
            self._specification.ParseFromString((path / _MODEL).read_bytes())
            (function,) = self._specification.mlProgram.functions.values()
            self._block = function.block_specializations[function.opset]
        except Exception as error:
            # protobuf has its own classes of errors.
            raise ArtifactError(
                "The Core ML package cannot be quantized.",
                where=str(path),
                found=f"{type(error).__name__}: {error}"[:300],
                expected="a package of one function, as export writes it",
                next_step="export it again",
            ) from error
        self._fresh: list[Array] = []
        weights = path / _MODEL.parent / _WEIGHTS
        self._reader = _BlobStorageReader(str(weights)) if weights.is_file() else None
        self.opset = int(function.opset.removeprefix("CoreML"))
        self.inputs: tuple[Any, ...] = tuple(function.inputs)
        self.outputs: tuple[str, ...] = tuple(self._block.outputs)

    @property
    def operations(self) -> Any:
        """What the program does, in order."""
        return self._block.operations

    def rearrange(self, operations: list[Any]) -> None:
        """Make ``operations`` what the program does."""
        copies = [MIL_pb2.Operation.FromString(one.SerializeToString(deterministic=True)) for one in operations]
        del self._block.operations[:]
        self._block.operations.extend(copies)

    def array(self, operation: Any) -> Array | None:
        """Return the numbers of the constant ``operation``; None unless they are floating-point ones."""
        if operation.type != "const":
            return None
        value = operation.attributes["val"]
        kind = _kind(value.type)
        if kind not in _FLOATS:
            return None
        shape = tensor_shape(value.type)
        if value.WhichOneof("value") == "blobFileValue":
            return self._read(value).reshape(shape)
        stored = value.immediateValue.tensor
        if stored.WhichOneof("value") == "bytes":
            return np.frombuffer(stored.bytes.values, _NUMBERS[kind]).reshape(shape)
        return np.array(stored.floats.values, _NUMBERS[kind]).reshape(shape)

    def value(self, array: Array, kind: str | None = None) -> Any:
        """Return ``array`` as a value of the program; ``kind`` names integers of less than 8 bits, one a byte."""
        if kind is None and array.size < _SMALLEST_IN_FILE:
            return helper.create_tensor_value(array)
        name = kind or next(known for known, dtype in _NUMBERS.items() if dtype == array.dtype.name)
        self._fresh.append(array)
        return helper.create_file_value_tensor(_FRESH, len(self._fresh) - 1, array.shape, MIL_pb2.DataType.Value(name))

    def stored_bytes(self) -> int:
        """Return the bytes of the numbers that the operations read: weights, scales, zero points and tables."""
        return sum(_stored_bytes(value) for value in _values(self._block))

    def save(self, output: Path) -> None:
        """Write the package as the new folder ``output``, the same bytes each time."""
        (output / _MODEL.parent / _WEIGHTS).parent.mkdir(parents=True)
        shutil.copyfile(self._path / "Manifest.json", output / "Manifest.json")
        writer = _BlobStorageWriter(str(output / _MODEL.parent / _WEIGHTS))
        written = Model_pb2.Model()
        written.CopyFrom(self._specification)
        (function,) = written.mlProgram.functions.values()
        for value in _values(function.block_specializations[function.opset]):
            if value.WhichOneof("value") == "blobFileValue":
                place = value.blobFileValue
                raw = self._fresh[place.offset].reshape(-1) if place.fileName == _FRESH else self._read(value)
                place.offset = _write(writer, _kind(value.type), raw)
                place.fileName = f"@model_path/{_WEIGHTS.as_posix()}"
        del writer
        (output / _MODEL).write_bytes(written.SerializeToString(deterministic=True))

    def _read(self, value: Any) -> Array:
        kind = _kind(value.type)
        read = getattr(self._reader, f"read_{(_STORED | _STORED_LATER)[kind]}_data")
        found = np.array(read(value.blobFileValue.offset))
        return found.view(np.float16) if kind == "FLOAT16" else found


def _write(writer: Any, kind: str, raw: Array) -> int:
    flat = np.ascontiguousarray(raw)
    write = getattr(writer, f"write_{(_STORED | _STORED_LATER)[kind]}_data")
    return int(write(flat.view(np.uint16) if kind == "FLOAT16" else flat))


def tensor_shape(kind: Any) -> tuple[int, ...]:
    """Return the shape that the type states; -1 for an axis of any size."""
    axes = kind.tensorType.dimensions
    return tuple(int(axis.constant.size) if axis.WhichOneof("dimension") == "constant" else -1 for axis in axes)


def float_dtype(kind: Any) -> str | None:
    """Return the dtype that the type states, as numpy names it; None unless it is a tensor of floats."""
    name = _kind(kind)
    return _NUMBERS[name] if name in _FLOATS else None


def _kind(kind: Any) -> str:
    """Return Core ML's name of the dtype of a tensor; nothing for another type."""
    if kind.WhichOneof("type") != "tensorType":
        return ""
    return str(MIL_pb2.DataType.Name(kind.tensorType.dataType))


def _values(block: Any) -> Iterator[Any]:
    """Yield every value that the operations of ``block`` hold, always in the same order."""
    for operation in block.operations:
        for name in sorted(operation.attributes):
            yield operation.attributes[name]
        for name in sorted(operation.inputs):
            yield from (one.value for one in operation.inputs[name].arguments if one.WhichOneof("binding") == "value")
        for inner in operation.blocks:
            yield from _values(inner)


def _stored_bytes(value: Any) -> int:
    kind = _kind(value.type)
    if value.WhichOneof("value") == "blobFileValue" or kind in _NUMBERS:
        return packed_bytes(kind.lower(), math.prod(tensor_shape(value.type)))
    return 0
