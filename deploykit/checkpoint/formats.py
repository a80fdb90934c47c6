"""The containers: torch's zip archive, torch's legacy stream, TorchScript archives and safetensors."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors

from deploykit.checkpoint.inert import PickleMachine
from deploykit.checkpoint.recognise import EXPECTED, LEGACY, ZIP, recognise
from deploykit.checkpoint.refusal import damaged, listed, shown
from deploykit.checkpoint.tensors import REBUILDERS, StorageRef, storage_reference, swapped_order
from deploykit.errors import CheckpointError

_ENCRYPTED = 0x1
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    OverflowError,
    EOFError,
    OSError,
    KeyError,
    struct.error,
)
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


@dataclass(frozen=True, slots=True)
class Opened:
    """A file taken apart: the inert root, its storages by key, and the names met on the way that were not called."""

    format: str
    root: object
    storage_bytes: Callable[[str], bytes | memoryview]
    swapped: bool
    foreign: tuple[str, ...]


def open_checkpoint(content: bytes) -> Opened:
    """Return the parts of a checkpoint given as the bytes of its file, recognised by content.

    Raises CheckpointError when it is something else, encrypted, damaged or incomplete.
    """
    kind = recognise(content)
    if kind == ZIP:
        return _open_zip(content)
    return _open_legacy(content) if kind == LEGACY else _open_safetensors(content)


def _open_safetensors(content: bytes) -> Opened:
    try:
        tensors = load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, OverflowError, RuntimeError) as error:
        raise damaged(f"a safetensors file that cannot be read ({shown(str(error))})") from error
    return Opened("safetensors", tensors, lambda _: b"", False, ())


def _open_zip(content: bytes) -> Opened:
    try:
        archive = zipfile.ZipFile(BytesIO(content))
        records = {info.filename: info for info in archive.infolist()}
    except _ZIP_ERRORS as error:
        raise damaged(f"an incomplete zip archive ({shown(str(error))})") from error
    prefix = _root_folder(records)
    _check_records(records, len(content))

    def record(name: str) -> bytes:
        if name not in records:
            raise damaged(f"the archive has no record {shown(name)}")
        _require_stored(name, records[name])
        try:
            return archive.read(records[name])
        except _ZIP_ERRORS as error:
            raise damaged(f"the record {shown(name)} cannot be read ({shown(str(error))})") from error

    pickled = record(f"{prefix}data.pkl")
    order = record(f"{prefix}byteorder") if f"{prefix}byteorder" in records else b"little"
    if order not in (b"little", b"big"):
        raise damaged("an unknown byte order")
    machine = PickleMachine(BytesIO(pickled), known=REBUILDERS, persistent=storage_reference)
    root = machine.load()
    scripted = f"{prefix}constants.pkl" in records or any(name.startswith(f"{prefix}code/") for name in records)
    return Opened(
        "torchscript" if scripted else "torch-zip",
        root,
        lambda key: record(f"{prefix}data/{key}"),
        swapped_order(order == b"little"),
        tuple(machine.foreign),
    )


def _root_folder(records: dict[str, zipfile.ZipInfo]) -> str:
    """Return the archive's one folder with a trailing slash (or nothing), the one that holds ``data.pkl``."""
    found = [name.removesuffix("data.pkl") for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
    outermost = [prefix for prefix in found if prefix.count("/") <= 1]
    if len(outermost) == 1:
        return outermost[0]
    raise CheckpointError(
        "this is not a checkpoint",
        found=f"a zip archive that holds {listed(list(records), 5) or 'nothing'}",
        expected=EXPECTED,
        next_step="give the checkpoint inside, or save the network with torch.save(network.state_dict(), path)",
    )


def _check_records(records: dict[str, zipfile.ZipInfo], size: int) -> None:
    """Refuse what torch never writes: encrypted records, or more bytes than the file has."""
    if any(info.flag_bits & _ENCRYPTED for info in records.values()):
        raise CheckpointError(
            "the checkpoint is encrypted",
            found="a zip archive with a password",
            expected=EXPECTED,
            next_step="decrypt it first",
        )
    # The code of a TorchScript archive is compressed, and never read here.
    stored = [info.file_size for info in records.values() if info.compress_type == zipfile.ZIP_STORED]
    if sum(stored) > size:
        raise damaged("an archive that declares more bytes than the file has")


def _require_stored(name: str, info: zipfile.ZipInfo) -> None:
    """Refuse to unpack: what torch writes uncompressed can only have been packed again, or be a zip bomb."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise CheckpointError(
            "the checkpoint is a compressed zip archive",
            found=f"the compressed record {shown(name)}",
            expected="an archive as torch.save writes it, without compression",
            next_step="give the file as torch.save wrote it, not one packed again by another program",
        )


def _open_legacy(content: bytes) -> Opened:
    stream = BytesIO(content)
    item_sizes: dict[str, int] = {}

    def persistent(identifier: tuple[object, ...]) -> object:
        found = storage_reference(identifier)
        if isinstance(found, StorageRef):
            item_sizes[found.key] = found.item_size
        return found

    machine = PickleMachine(stream, known=REBUILDERS, persistent=persistent)
    magic, protocol, _ = machine.load(), machine.load(), machine.load()
    if magic != _LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL:
        raise damaged("a legacy checkpoint of an unknown version")
    root, keys = machine.load(), machine.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) and key in item_sizes for key in keys):
        raise damaged("a list of storages that does not match the tensors")
    storages = _legacy_storages(memoryview(content), stream.tell(), {key: item_sizes[key] for key in keys})

    def storage_bytes(key: str) -> memoryview:
        if key not in storages:
            raise damaged(f"storage {shown(key)} is missing")
        return storages[key]

    # The legacy writer stores little-endian numbers on every machine.
    return Opened("torch-legacy", root, storage_bytes, swapped_order(True), tuple(machine.foreign))


def _legacy_storages(content: memoryview, start: int, item_sizes: dict[str, int]) -> dict[str, memoryview]:
    """Return the raw storages that follow the pickles: eight bytes of count, then the elements."""
    storages: dict[str, memoryview] = {}
    for key, item_size in item_sizes.items():
        count = int.from_bytes(content[start : start + 8], "little")
        end = start + 8 + count * item_size
        if start + 8 > len(content) or end > len(content):
            raise damaged(
                f"the file ends after {len(content)} bytes, in storage {len(storages) + 1} of {len(item_sizes)}"
            )
        storages[key] = content[start + 8 : end]
        start = end
    return storages
