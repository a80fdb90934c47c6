"""Nothing in a checkpoint is executed, and no pickle can crash, hang or fill the memory of the reader."""

from __future__ import annotations

import functools
import io
import os
import pathlib
import pickle
import runpy
import struct
import subprocess
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from deploykit.checkpoint import read_checkpoint
from deploykit.errors import CheckpointError


class Call:
    """Pickles as a call of ``function``, which unpickling makes."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function = function
        self.arguments = arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.function, self.arguments


class Trap:
    """Creates a file when its state is restored, as pickle's BUILD does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getstate__(self) -> dict[str, str]:
        return {"path": str(self.path)}

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["path"]).touch()


class TrapDict(dict[str, object]):
    """Creates a file when an entry is set, as pickle's SETITEMS does."""

    def __setitem__(self, key: str, value: object) -> None:
        Path(str(value)).touch()


class TrapList(list[object]):
    """Creates a file when it is extended, as pickle's APPENDS does."""

    def extend(self, values: object) -> None:
        for value in values:  # type: ignore[attr-defined]
            Path(str(value)).touch()


class TrappedNet(nn.Module):
    def __init__(self, trap: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.trap = trap


def trap_dict(path: Path) -> TrapDict:
    made = TrapDict()
    dict.__setitem__(made, "path", str(path))
    return made


def nested_load(path: Path) -> Call:
    """A checkpoint that loads a second, hostile one without torch's restriction."""
    second = path.with_name("second.pth")
    with second.open("wb") as stream:
        torch.save(Call(os.system, f"touch {path}"), stream)
    return Call(functools.partial(torch.load, weights_only=False), str(second))


def script(path: Path) -> Call:
    written = path.with_name("script.py")
    written.write_text(f"open({str(path)!r}, 'w').close()")
    return Call(runpy.run_path, str(written))


HOSTILE: dict[str, Callable[[Path], object]] = {
    "os.system": lambda path: Call(os.system, f"touch {path}"),
    "exec": lambda path: Call(exec, f"open({str(path)!r}, 'w').close()"),
    "eval": lambda path: Call(eval, f"open({str(path)!r}, 'w').close()"),
    "subprocess": lambda path: Call(subprocess.check_call, ["touch", str(path)]),
    "Path.touch": lambda path: Call(pathlib.Path.touch, path),
    "os.mknod": lambda path: Call(os.mknod, str(path)),
    "torch.load": nested_load,
    "runpy": script,
    "setstate": Trap,
    "setitems": trap_dict,
    "appends": lambda path: TrapList([str(path)]),
    "partial": lambda path: Call(functools.partial(os.system, f"touch {path}")),
    "map": lambda path: Call(list, Call(map, os.system, [f"touch {path}"])),
}


def hostile(path: Path, name: str, place: str) -> object:
    trap = HOSTILE[name](path)
    if place == "module":
        return TrappedNet(trap)
    if place == "beside":
        return {"state_dict": {"weight": torch.ones(2)}, "logger": trap}
    return {"weight": torch.ones(2), "trap": trap}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["inside", "beside", "module"])
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_hostile_pickle_is_not_executed(tmp_path: Path, name: str, place: str, legacy: bool) -> None:
    created, path = tmp_path / "created", tmp_path / "hostile.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = hostile(created, name, place)
        created.unlink(missing_ok=True)
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        checkpoint = read_checkpoint(path)
    assert not created.exists()
    assert any("stand-in" in note for note in checkpoint.notes)
    assert set(checkpoint.tensors) == ({"conv.weight", "conv.bias"} if place == "module" else {"weight"})
    if (place, legacy) == ("inside", False):
        torch.load(path, weights_only=False)
        assert created.exists(), "the payload itself must work, or the test shows nothing"


def text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    encoded = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + encoded


def sequence(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def storage(elements: int = 4, key: str = "0", kind: bytes = b"ctorch\nFloatStorage\n") -> bytes:
    return sequence(text("storage"), kind, text(key), text("cpu"), number(elements)) + b"Q"


def counts(*values: int) -> bytes:
    return sequence(*(number(value) for value in values))


def tensor(
    offset: bytes = number(0), size: bytes = counts(4), stride: bytes = counts(1), stored: bytes | None = None
) -> bytes:
    described = sequence(storage() if stored is None else stored, offset, size, stride, b"\x89", b"N")
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + described + b"R"


def state_dict(value: bytes, before: bytes = b"") -> bytes:
    """A pickle of {"weight": value}, after operations that leave the stack as it was."""
    return b"\x80\x02" + before + b"}" + text("weight") + value + b"s."


def write_zip(path: Path, pickled: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/version", "3\n")
        archive.writestr("net/data/0", struct.pack("<4f", 1, 2, 3, 4))
    return path


def write_legacy(path: Path, pickled: bytes) -> Path:
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    tail = pickle.dumps(["0"], 2) + struct.pack("<q4f", 4, 1, 2, 3, 4)
    path.write_bytes(b"".join(pickle.dumps(value, 2) for value in head) + pickled + tail)
    return path


WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy], ids=["zip", "legacy"])


def test_the_hand_written_pickle_is_a_checkpoint(tmp_path: Path) -> None:
    for write in (write_zip, write_legacy):
        found = read_checkpoint(write(tmp_path / "net", state_dict(tensor()))).tensors
        assert torch.equal(found["weight"], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.load(write_zip(tmp_path / "net", state_dict(tensor())))["weight"].tolist() == [1, 2, 3, 4]


BAD_TENSORS = {
    "beyond the storage": tensor(size=counts(5)),
    "offset beyond the storage": tensor(offset=number(1)),
    "stride beyond the storage": tensor(stride=counts(2)),
    "negative offset": tensor(offset=number(-1)),
    "negative size": tensor(size=counts(-4)),
    "negative stride": tensor(stride=counts(-1)),
    "huge size": tensor(size=counts(2**62)),
    "overflowing size": tensor(size=counts(2**40, 2**40), stride=counts(0, 0)),
    "overflowing empty size": tensor(size=counts(0, 2**47, 2**47), stride=counts(1, 1, 1)),
    "expanded beyond memory": tensor(size=counts(2**45), stride=counts(0)),
    "too many axes": tensor(size=counts(*[1] * 100), stride=counts(*[1] * 100)),
    "strides of another length": tensor(stride=counts(1, 1)),
    "size of text": tensor(size=sequence(text("4"))),
    "size of truth": tensor(size=sequence(b"\x88")),
    "size without a tuple": tensor(size=number(4)),
    "offset of a list": tensor(offset=b"]"),
    "thousands of digits": tensor(offset=b"\x8b" + struct.pack("<I", 9000) + b"\x7f" * 9000),
    "no storage": tensor(stored=b"N"),
    "larger storage than stored": tensor(stored=storage(2**40)),
    "smaller storage than stored": tensor(stored=storage(3)),
    "negative storage": tensor(stored=storage(-1)),
    "unknown storage key": tensor(stored=storage(key="../../etc/passwd")),
    "storage type from elsewhere": tensor(stored=storage(kind=b"cos\nsystem\n")),
    "persistent id of text": tensor(stored=text("storage") + b"Q"),
    "empty persistent id": tensor(stored=b")Q"),
    "too few arguments": b"ctorch._utils\n_rebuild_tensor_v2\n)R",
    "parameter of nothing": b"ctorch._utils\n_rebuild_parameter\n)R",
}


@WRITERS
@pytest.mark.parametrize("name", BAD_TENSORS)
def test_impossible_tensors_are_refused(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    path = write(tmp_path / "net", state_dict(BAD_TENSORS[name]))
    with pytest.raises(CheckpointError, match="damaged") as caught:
        read_checkpoint(path)
    assert caught.value.where == str(path)


def test_an_unknown_storage_type_is_refused_by_name(tmp_path: Path) -> None:
    bad = tensor(stored=storage(kind=b"ctorch\nEvilStorage\n"))
    with pytest.raises(CheckpointError, match="EvilStorage"):
        read_checkpoint(write_zip(tmp_path / "net", state_dict(bad)))


def from_type(inner: bytes) -> bytes:
    return b"ctorch._tensor\n_rebuild_from_type_v2\n" + inner + b"R"


@pytest.mark.parametrize("function", [b"cos\nsystem\n", b"ctorch._tensor\n_rebuild_from_type_v2\n", b"N"])
def test_rebuild_from_type_calls_tensor_functions_only(tmp_path: Path, function: bytes) -> None:
    created = tmp_path / "created"
    inner = sequence(function, b"ctorch\nTensor\n", sequence(text(f"touch {created}")), b"}")
    with pytest.raises(CheckpointError, match="tensor subclass"):
        read_checkpoint(write_zip(tmp_path / "net", state_dict(from_type(inner))))
    assert not created.exists()


SYSTEM = b"cposix\nsystem\n"
HARMLESS = {
    "stack global with dots": lambda run: text("os") + text("path.os.system") + b"\x93" + run + b"R0",
    "getattr chain": lambda run: (
        b"cbuiltins\ngetattr\n" + sequence(b"cos\n__dict__\n", text("system")) + b"R" + run + b"R0"
    ),
    "instance": lambda run: b"(" + run[1:-1] + b"iposix\nsystem\n0",
    "object": lambda run: b"(" + SYSTEM + run[1:-1] + b"o0",
    "new object": lambda run: SYSTEM + run + b"\x810",
    "new object with keywords": lambda run: SYSTEM + run + b"}\x920",
    "reconstructor": lambda run: b"ccopyreg\n_reconstructor\n" + sequence(SYSTEM, SYSTEM, run) + b"R0",
    "ordered dictionary": lambda run: b"ccollections\nOrderedDict\n" + sequence(SYSTEM, run) + b"R0",
    "default dictionary": lambda run: b"ccollections\ndefaultdict\n" + sequence(SYSTEM) + b"R" + run + run + b"s0",
    "size": lambda run: b"ctorch\nSize\n" + sequence(SYSTEM + run + b"R") + b"R0",
    "parameter": lambda run: b"ctorch._utils\n_rebuild_parameter\n" + sequence(SYSTEM + run + b"R") + b"R0",
    "hooks": lambda run: (
        b"ctorch._utils\n_rebuild_tensor_v2\n"
        + sequence(storage(), number(0), counts(4), counts(1), b"\x88", SYSTEM + run + b"R")
        + b"R0"
    ),
    "state of a function": lambda run: (
        b"ctorch._utils\n_rebuild_tensor_v2\n" + b"N}" + text("__code__") + SYSTEM + run + b"Rs\x86b0"
    ),
    "state of a class": lambda run: b"ccollections\nOrderedDict\n}" + text("__init__") + SYSTEM + b"sb0",
    "module with source": lambda run: sequence(text("module"), SYSTEM, text("a.py"), text("1")) + b"Q" + run + b"R0",
}


@WRITERS
@pytest.mark.parametrize("name", HARMLESS)
def test_no_operation_calls_anything(tmp_path: Path, write: Callable[..., Path], name: str) -> None:
    created = tmp_path / "created"
    before = HARMLESS[name](sequence(text(f"touch {created}")))
    rebuild = torch._utils._rebuild_tensor_v2.__code__
    checkpoint = read_checkpoint(write(tmp_path / "net", state_dict(tensor(), before)))
    assert torch.equal(checkpoint.tensors["weight"], torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert not created.exists()
    assert torch._utils._rebuild_tensor_v2.__code__ is rebuild


DEEP = 200_000
REFUSED = {
    "extension": b"\x80\x02\x82\x01.",
    "out of band buffer": b"\x80\x05\x97.",
    "call of a number": b"\x80\x02" + number(3) + b")R.",
    "call without a tuple": b"\x80\x02" + SYSTEM + b"]R.",
    "pop of nothing": b"\x80\x020.",
    "mark of nothing": b"\x80\x02t.",
    "nothing left": b"\x80\x02.",
    "memo of nothing": b"\x80\x02h\x05.",
    "items for a number": b"\x80\x02" + number(3) + b"Na.",
    "entries for a number": b"\x80\x02" + number(3) + b"NNs.",
    "key without a value": b"\x80\x02}(Nu.",
    "name of a number": b"\x80\x02" + number(3) + number(4) + b"\x93.",
    "text persistent id": b"\x80\x02Pstorage\n.",
    "object of nothing": b"\x80\x02(o.",
    "bytes beyond the file": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"abc.",
    "byte array beyond the file": b"\x80\x05\x96" + struct.pack("<Q", 2**45) + b"abc.",
    "text beyond the file": b"\x80\x02X\xff\xff\xff\xffabc.",
    "no stop": b"\x80\x02}",
    "no tensors, memo at four thousand million": b"\x80\x02]r\xff\xff\xff\xff.",
    "no tensors, deep lists": b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".",
    "no tensors, deep tuple as a key": b"\x80\x02}" + b")" + b"\x85" * DEEP + b"Ns.",
    "no tensors, deep calls": b"\x80\x02cm\nC\nq\x00)R" + b"q\x010h\x00h\x01\x85R" * DEEP + b".",
    "no tensors, list that holds itself": b"\x80\x02]q\x00h\x00a.",
    "no tensors, dictionary that holds itself": b"\x80\x02}q\x00" + text("model") + b"h\x00s.",
    "one long list copied again and again": b"\x80\x02]("
    + b"))" * 50_000
    + b"eq\x000"
    + b"ccollections\nOrderedDict\nh\x00\x85R0" * 60
    + b"N.",
}


@pytest.mark.parametrize("name", REFUSED)
def test_pickles_that_end_in_one_error(tmp_path: Path, name: str) -> None:
    words = "no tensors" if name.startswith("no tensors") else "damaged"
    with pytest.raises(CheckpointError, match=words):
        read_checkpoint(write_zip(tmp_path / "net", REFUSED[name]))


def test_deep_nesting_beside_the_tensors_is_passed_over(tmp_path: Path) -> None:
    deep = b"]" * DEEP + b"a" * (DEEP - 1) + b"0"
    assert read_checkpoint(write_zip(tmp_path / "net", state_dict(tensor(), deep))).tensors.keys() == {"weight"}


def module(children: bytes) -> bytes:
    attributes = b"}" + text("_parameters") + b"}s" + text("_modules") + children + b"s"
    return b"cnet\nNet\n)\x81" + attributes + b"b"


def test_a_module_reached_by_exponentially_many_paths_is_refused(tmp_path: Path) -> None:
    tree = module(b"}" + text("a") + module(b"}") + b"s")
    for level in range(40):
        tree += b"q" + bytes([level]) + b"0"
        again = b"h" + bytes([level])
        tree += module(b"}" + text("a") + again + b"s" + text("b") + again + b"s")
    with pytest.raises(CheckpointError, match="nested without end"):
        read_checkpoint(write_zip(tmp_path / "net", b"\x80\x02" + tree + b"."))


def test_a_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    itself = b"cnet\nNet\n)\x81q\x00}" + text("_parameters") + b"}s" + text("_modules")
    itself += b"}" + text("a") + b"h\x00ssb"
    with pytest.raises(CheckpointError, match="nested without end"):
        read_checkpoint(write_zip(tmp_path / "net", b"\x80\x02" + itself + b"."))


def test_names_of_the_file_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07"
    pickled = state_dict(tensor(), text(evil) + text("\n\x1b[2J") + b"\x93)R0")
    notes = read_checkpoint(write_zip(tmp_path / "net", pickled)).notes
    assert "stand-in" in notes[0]
    assert all(note.isprintable() for note in notes)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(write_zip(tmp_path / "net", state_dict(tensor())), key=evil)
    assert "\x1b" not in str(caught.value)


def test_an_archive_whose_records_share_bytes_is_refused(tmp_path: Path) -> None:
    """A thousand directory entries for one long record would be a thousand times the file in memory."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("net/data.pkl", state_dict(tensor()))
        archive.writestr("net/data/0", bytes(10_000))
        for number_ in range(1, 20):
            info = zipfile.ZipInfo(f"net/data/{number_}")
            original = archive.getinfo("net/data/0")
            info.header_offset, info.CRC = original.header_offset, original.CRC
            info.file_size = info.compress_size = original.file_size
            archive.filelist.append(info)
    path = tmp_path / "net"
    path.write_bytes(stream.getvalue())
    with pytest.raises(CheckpointError, match="more bytes than the file has"):
        read_checkpoint(path)
