"""From the pickled description of a tensor to the tensor: every size checked against the bytes that exist."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from deploykit.checkpoint.inert import GlobalName
from deploykit.checkpoint.refusal import damaged, shown
from deploykit.errors import CheckpointError

# Literal tables: a name of the file is a key here or it is refused.
STORAGE_DTYPES: dict[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
DTYPES: dict[str, torch.dtype] = {
    "torch.float64": torch.float64,
    "torch.float32": torch.float32,
    "torch.float16": torch.float16,
    "torch.bfloat16": torch.bfloat16,
    "torch.float8_e4m3fn": torch.float8_e4m3fn,
    "torch.float8_e4m3fnuz": torch.float8_e4m3fnuz,
    "torch.float8_e5m2": torch.float8_e5m2,
    "torch.float8_e5m2fnuz": torch.float8_e5m2fnuz,
    "torch.int64": torch.int64,
    "torch.int32": torch.int32,
    "torch.int16": torch.int16,
    "torch.int8": torch.int8,
    "torch.uint64": torch.uint64,
    "torch.uint32": torch.uint32,
    "torch.uint16": torch.uint16,
    "torch.uint8": torch.uint8,
    "torch.bool": torch.bool,
    "torch.complex64": torch.complex64,
    "torch.complex128": torch.complex128,
}
# Their tensors are refused, but a legacy file can only be walked when their sizes are known; others have one byte.
_QUANTIZED_ITEM_SIZES = {"QInt32Storage": 4}
_STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})
_MAX_EXTENT = 2**48
_MAX_AXES = 32
# An expanded view may have more elements than its storage, but not so many that reading it fills the memory.
_MAX_EXPANDED = 2**24

Arguments = tuple[object, ...]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class StorageRef:
    """A storage by its key; ``elements`` of ``dtype`` are declared, the view starts ``start`` elements in."""

    key: str
    dtype: torch.dtype | None
    kind: str
    elements: int
    start: int = 0

    @property
    def item_size(self) -> int:
        """The bytes that one declared element takes."""
        return _QUANTIZED_ITEM_SIZES.get(self.kind, 1) if self.dtype is None else self.dtype.itemsize


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class TensorRecord:
    """A tensor as described by the pickle; nothing in it is checked against the storage yet."""

    storage: StorageRef
    dtype: torch.dtype | None
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    conjugate: bool
    negative: bool


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class RefusedTensor:
    """A tensor of a kind that is not read: ``kind`` names it."""

    kind: str


Leaf = TensorRecord | RefusedTensor | torch.Tensor


def storage_reference(identifier: Arguments) -> object:
    """Return what a persistent id stands for: a storage, or the class of a module saved with its source.

    Raises CheckpointError for every other form.
    """
    if len(identifier) == 4 and identifier[0] == "module" and isinstance(identifier[1], GlobalName):
        return identifier[1]
    if len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise damaged("a persistent id of unknown form")
    _, kind, key, _, elements = identifier[:5]
    if not isinstance(kind, GlobalName) or kind.module not in _STORAGE_MODULES or not isinstance(key, str):
        raise damaged("a storage whose type or key is no name")
    start = 0
    if len(identifier) == 6 and isinstance(identifier[5], tuple) and len(identifier[5]) == 3:
        start = _extent(identifier[5][1])
    return StorageRef(key, STORAGE_DTYPES.get(kind.name), kind.name, _extent(elements), start)


def _extent(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_EXTENT:
        raise damaged("a tensor size, stride or offset that is no count")
    return value


def _extents(value: object) -> tuple[int, ...]:
    if not isinstance(value, tuple | list) or len(value) > _MAX_AXES:
        raise damaged("a tensor shape that is no short list of counts")
    return tuple(_extent(number) for number in value)


def _record(arguments: Arguments, dtype: torch.dtype | None, metadata: object) -> TensorRecord:
    storage, offset, size, stride = arguments[:4]
    if not isinstance(storage, StorageRef):
        raise damaged("a tensor without a storage")
    marks = metadata if isinstance(metadata, dict) else {}
    record = TensorRecord(
        storage,
        dtype or storage.dtype,
        _extent(offset),
        _extents(size),
        _extents(stride),
        marks.get("conj") is True,
        marks.get("neg") is True,
    )
    if len(record.size) != len(record.stride):
        raise damaged("a tensor with another number of strides than of axes")
    return record


def _rebuild_tensor(arguments: Arguments) -> object:
    _require(arguments, 4)
    return _record(arguments, None, arguments[6] if len(arguments) > 6 else None)


def _rebuild_tensor_v3(arguments: Arguments) -> object:
    _require(arguments, 7)
    name = str(arguments[6]) if isinstance(arguments[6], GlobalName) else "unknown to this reader"
    if name not in DTYPES:
        return RefusedTensor(f"tensor of type {shown(name)}")
    return _record(arguments, DTYPES[name], arguments[7] if len(arguments) > 7 else None)


def _first(arguments: Arguments) -> object:
    _require(arguments, 1)
    return arguments[0]


def _rebuild_from_type(arguments: Arguments) -> object:
    _require(arguments, 3)
    function, inner = arguments[0], arguments[2]
    name = str(function) if isinstance(function, GlobalName) else ""
    if name not in _TENSOR_FUNCTIONS or not isinstance(inner, tuple):
        return RefusedTensor("tensor subclass with its own way of loading")
    return _TENSOR_FUNCTIONS[name](inner)


def _refused(kind: str) -> Callable[[Arguments], object]:
    return lambda _: RefusedTensor(kind)


def _require(arguments: Arguments, count: int) -> None:
    if len(arguments) < count:
        raise damaged("a tensor with too few arguments")


_TENSOR_FUNCTIONS: dict[str, Callable[[Arguments], object]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _first,
    "torch._utils._rebuild_parameter_with_state": _first,
    "torch._utils._rebuild_qtensor": _refused("quantized tensor"),
    "torch._utils._rebuild_sparse_tensor": _refused("sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _refused("sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _refused("nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _refused("meta tensor, which holds no values,"),
    "torch._utils._rebuild_wrapper_subclass": _refused("tensor subclass"),
    "torch._utils._rebuild_device_tensor_from_numpy": _refused("tensor saved as a NumPy array"),
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _first,
}
REBUILDERS: dict[str, Callable[[Arguments], object]] = {
    **_TENSOR_FUNCTIONS,
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.tensor._rebuild_from_type": _rebuild_from_type,
    "torch.Size": _first,
}


class TensorReader:
    """Makes tensors from records; those that share a storage in the file share it in memory.

    ``storage_bytes`` returns the bytes of a storage by key; ``swapped`` says that they are in the other byte order.
    """

    def __init__(self, storage_bytes: Callable[[str], bytes | memoryview], *, swapped: bool) -> None:
        self._storage_bytes = storage_bytes
        self._swapped = swapped
        self._storages: dict[tuple[str, torch.dtype], torch.Tensor] = {}

    def tensor(self, name: str, leaf: Leaf) -> torch.Tensor:
        """Return the tensor on the CPU, in its saved type; CheckpointError names it when it cannot be read."""
        if isinstance(leaf, torch.Tensor):
            return leaf
        if isinstance(leaf, RefusedTensor) or leaf.dtype is None:
            kind = leaf.kind if isinstance(leaf, RefusedTensor) else f"tensor on a {shown(leaf.storage.kind)}"
            raise CheckpointError(
                f"the tensor {shown(name)!r} cannot be read",
                found=f"a {kind}",
                expected="a dense tensor of floating, integer, boolean or complex numbers",
                next_step="save the trained network before quantization or pruning, as an ordinary state dict",
            )
        flat = self._flat(leaf.storage, leaf.dtype)
        _check_bounds(name, leaf, flat.numel())
        if 0 in leaf.size:
            return torch.empty(leaf.size, dtype=leaf.dtype)
        found = flat.as_strided(leaf.size, leaf.stride, leaf.storage.start + leaf.offset)
        found = found.conj() if leaf.conjugate and found.is_complex() else found
        return torch.neg(found) if leaf.negative else found

    def _flat(self, storage: StorageRef, dtype: torch.dtype) -> torch.Tensor:
        """Return the whole storage as one axis of ``dtype``."""
        if (storage.key, dtype) not in self._storages:
            stored = self._storage_bytes(storage.key)
            declared = storage.elements * storage.item_size
            if len(stored) != declared or declared % dtype.itemsize:
                raise damaged(f"storage {shown(storage.key)} has {len(stored)} bytes, {declared} are declared")
            self._storages[storage.key, dtype] = _decoded(stored, dtype, self._swapped)
        return self._storages[storage.key, dtype]


def _decoded(stored: bytes | memoryview, dtype: torch.dtype, swapped: bool) -> torch.Tensor:
    if not stored:
        return torch.empty(0, dtype=dtype)
    if swapped and dtype.itemsize > 1:
        word = dtype.itemsize // 2 if dtype.is_complex else dtype.itemsize
        stored = np.frombuffer(stored, dtype=f"u{word}").byteswap().tobytes()
    raw = torch.frombuffer(bytearray(stored), dtype=torch.uint8)
    # A byte other than 0 and 1 is no valid torch.bool.
    return raw != 0 if dtype == torch.bool else raw.view(dtype)


def _check_bounds(name: str, record: TensorRecord, available: int) -> None:
    elements = math.prod(record.size)
    last = record.storage.start + record.offset
    last += sum((size - 1) * stride for size, stride in zip(record.size, record.stride, strict=True))
    if elements and last >= available:
        raise damaged(f"the tensor {shown(name)!r} reaches beyond its storage of {available} elements")
    # An empty tensor may declare other axes of any length: their product must stay a size that torch can hold.
    if elements > max(available, _MAX_EXPANDED) or math.prod(max(size, 1) for size in record.size) > _MAX_EXTENT:
        raise damaged(f"the tensor {shown(name)!r} declares more elements than its storage of {available} has")


def swapped_order(little_endian: bool) -> bool:
    """Return whether bytes in that order must be swapped on this machine."""
    return little_endian != (sys.byteorder == "little")
