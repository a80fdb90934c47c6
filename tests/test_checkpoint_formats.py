"""Every format and element type that is read, and every mistake that is named."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from deploykit.checkpoint import Checkpoint, read_checkpoint, sha256_file
from deploykit.errors import CheckpointError


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.head = nn.Sequential(nn.Conv2d(4, 2, 1), nn.PReLU(2))
        self.register_buffer("grid", torch.arange(6.0).reshape(2, 3).t())
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


def small_net() -> SmallNet:
    torch.manual_seed(7)
    net = SmallNet()
    for tensor in (net.bn.weight, net.bn.bias, net.bn.running_mean, net.bn.running_var):
        assert tensor is not None
        nn.init.uniform_(tensor, 0.1, 2.0)
    return net


def save(path: Path, content: object, *, legacy: bool = False, protocol: int = 2) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
    return path


def assert_same(checkpoint: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    assert list(checkpoint.tensors) == list(expected)
    for name, tensor in expected.items():
        found = checkpoint.tensors[name]
        assert found.dtype == tensor.dtype
        assert found.device.type == "cpu"
        assert found.shape == tensor.shape
        assert torch.equal(found.nan_to_num() if found.is_floating_point() else found, tensor), name


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".pth.tar", ".ckpt", ".safetensors", ""])
def test_state_dict(tmp_path: Path, legacy: bool, protocol: int, suffix: str) -> None:
    net = small_net()
    path = save(tmp_path / f"net{suffix}", net.state_dict(), legacy=legacy, protocol=protocol)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == ("torch-legacy" if legacy else "torch-zip")
    assert checkpoint.selected_key == ""
    assert checkpoint.notes == ()
    assert checkpoint.sha256 == sha256_file(path)
    assert_same(checkpoint, dict(net.state_dict()))


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert sha256_file(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_safetensors(tmp_path: Path) -> None:
    expected = {"a.weight": torch.randn(3, 4), "b": torch.arange(4).to(torch.bfloat16), "n": torch.tensor(3)}
    path = tmp_path / "net.pth"
    save_file(expected, path, metadata={"format": "pt"})
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "safetensors"
    assert {name: t.dtype for name, t in checkpoint.tensors.items()} == {n: t.dtype for n, t in expected.items()}
    assert all(torch.equal(checkpoint.tensors[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_element_types_and_views(tmp_path: Path, legacy: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    expected = {
        "base": base,
        "transposed": base.t(),
        "slice": base[1:3, 2:],
        "column": base[:, 5],
        "expanded": torch.tensor([3.0]).expand(2, 5),
        "zero_axes": torch.tensor(4.5),
        "empty": torch.empty(0, 3),
        "float64": torch.randn(3, dtype=torch.float64),
        "half": torch.randn(3).half(),
        "bfloat16": torch.randn(3).bfloat16(),
        "int64": torch.tensor([-1, 2**40]),
        "int32": torch.tensor([-5, 7], dtype=torch.int32),
        "int16": torch.tensor([-5, 7], dtype=torch.int16),
        "int8": torch.tensor([-5, 7], dtype=torch.int8),
        "uint8": torch.tensor([5, 255], dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "complex": torch.randn(3, dtype=torch.complex64),
        "conjugate": torch.randn(3, dtype=torch.complex64).conj(),
        "imaginary": torch.randn(3, dtype=torch.complex64).conj().imag,
        "parameter": nn.Parameter(torch.randn(2)),
        "frozen": nn.Parameter(torch.randn(2), requires_grad=False),
    }
    if not legacy:
        expected["uint16"] = torch.tensor([1, 65535], dtype=torch.uint16)
        expected["float8"] = torch.tensor([0.5, -2.0]).to(torch.float8_e4m3fn)
    path = save(tmp_path / "net", expected, legacy=legacy)
    found = read_checkpoint(path).tensors
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert found[name].shape == tensor.shape, name
        assert not found[name].requires_grad
        assert torch.equal(found[name].to(torch.complex128), tensor.detach().to(torch.complex128)), name
    assert found["base"].untyped_storage().data_ptr() == found["transposed"].untyped_storage().data_ptr()
    assert found["transposed"].stride() == base.t().stride()


class Scale(nn.Parameter):
    """A subclass, which torch pickles through _rebuild_from_type_v2."""


def test_parameter_subclass_and_parameter_with_state(tmp_path: Path) -> None:
    scale, tagged = Scale(torch.randn(3)), nn.Parameter(torch.randn(3))
    tagged.origin = "layer"  # type: ignore[attr-defined]
    path = save(tmp_path / "net", {"scale": scale, "tagged": tagged})
    found = read_checkpoint(path).tensors
    assert torch.equal(found["scale"], scale.detach())
    assert torch.equal(found["tagged"], tagged.detach())


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("location", ["cuda:0", "cuda:7", "mps", "xla:1", "nowhere"])
def test_location_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool, location: str) -> None:
    monkeypatch.setattr("torch.serialization.location_tag", lambda _: location)
    net = small_net()
    path = save(tmp_path / "net", net.state_dict(), legacy=legacy)
    assert location.encode() in path.read_bytes()
    assert_same(read_checkpoint(path), dict(net.state_dict()))


def test_big_endian_archive(tmp_path: Path) -> None:
    numbers, pairs = torch.randn(5), torch.randn(3, dtype=torch.complex128)
    path = save(tmp_path / "net", {"a": numbers, "b": pairs})
    swapped = {"data/0": numbers.numpy().byteswap().tobytes(), "data/1": pairs.numpy().byteswap().tobytes()}
    rewrite(path, swapped | {"byteorder": b"big"})
    found = read_checkpoint(path).tensors
    assert torch.equal(found["a"], numbers)
    assert torch.equal(found["b"], pairs)


def rewrite(path: Path, replaced: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> None:
    """Write the archive again, with records replaced; names are those inside the archive's folder."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, record in records.items():
            archive.writestr(name, replaced.get(name.partition("/")[2], record))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_whole_module(tmp_path: Path, legacy: bool) -> None:
    net = small_net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(tmp_path / "net", net, legacy=legacy)
    checkpoint = read_checkpoint(path)
    assert "scratch" not in checkpoint.tensors
    assert_same(checkpoint, dict(net.state_dict()))
    assert checkpoint.notes[0] == f"recovered {len(net.state_dict())} tensors from a pickled network"
    assert "inert stand-ins" in checkpoint.notes[-1]
    assert "SmallNet" in checkpoint.notes[-1]


def test_torchscript(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.PReLU(2)).eval()
    nn.init.normal_(net[1].running_mean)
    path = tmp_path / "net.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(net), path)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == "torchscript"
    assert set(checkpoint.tensors) == set(net.state_dict())
    assert all(torch.equal(checkpoint.tensors[name], t) for name, t in net.state_dict().items())


def test_the_real_sinet(shared_cases: Path) -> None:
    path = shared_cases / "sinet_clovaai" / "SINet.pth"
    checkpoint = read_checkpoint(path)
    assert len(checkpoint.tensors) == 393
    assert checkpoint.format == "torch-legacy"
    assert_same(checkpoint, torch.load(path, map_location="cpu", weights_only=True))


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse tensor"),
        (lambda: torch.eye(3).to_sparse_csr(), "sparse tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint32), "quantized tensor"),
        (lambda: torch.ones(3, device="meta"), "meta tensor"),
    ],
)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_refused_kinds_of_tensor(tmp_path: Path, make: Callable[[], torch.Tensor], kind: str, legacy: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(tmp_path / "net", {"state_dict": {"good": torch.ones(2), "odd": make()}}, legacy=legacy)
    with pytest.raises(CheckpointError, match="'odd' cannot be read") as caught:
        read_checkpoint(path)
    assert kind in str(caught.value)
    assert str(path) in str(caught.value)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG image"),
        (b"<!DOCTYPE html><html><head>", "web page"),
        (b"\n  <html>", "web page"),
        (LFS, "git-lfs pointer"),
        (b"epoch 3 loss 0.1\n", "text file"),
        (bytes(257) + b"ustar\x0000" + bytes(300), "tar archive"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "gzip archive"),
        (b"\x08\x08\x12\x07pytorch\x1a\x05" + bytes(9), "ONNX model"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TFLite model"),
        (b"\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00}.", "torch.save did not write"),
        (b"\x01\xfe\xff\x00\x03" * 9, "no known format"),
        (struct.pack("<Q", 500) + b'{"a"', "safetensors"),
        (struct.pack("<Q", 4) + b'{"a"', "safetensors"),
        (b"PK\x03\x04" + bytes(100), "incomplete zip"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_checkpoint(path)
    assert caught.value.where == str(path)
    assert caught.value.next_step


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.pth", "no such file"), (tmp_path, "a directory")):
        for function in (read_checkpoint, sha256_file):
            with pytest.raises(CheckpointError, match=words):
                function(path)


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "net", small_net().state_dict())

    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    for function in (read_checkpoint, sha256_file):
        with pytest.raises(CheckpointError, match="Permission denied"):
            function(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, [1, 2], 5, {"state_dict": {}}, None])
def test_no_tensors(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_checkpoint(save(tmp_path / "net", content))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [0.2, 0.7, 0.999])
def test_truncated(tmp_path: Path, legacy: bool, part: float) -> None:
    path = save(tmp_path / "net", {"weight": torch.randn(4000)}, legacy=legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(path)


def test_wrong_checksum_in_an_archive(tmp_path: Path) -> None:
    path = save(tmp_path / "net", {"weight": torch.full((100,), 1.5)})
    content = bytearray(path.read_bytes())
    content[content.index(torch.full((100,), 1.5).numpy().tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="CRC"):
        read_checkpoint(path)


def test_encrypted_compressed_and_other_archives(tmp_path: Path) -> None:
    path = save(tmp_path / "net", {"weight": torch.ones(100)})
    stored = path.read_bytes()
    content = bytearray(stored)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := content.find(signature, position + 1)) >= 0:
            content[position + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="encrypted"):
        read_checkpoint(path)
    path.write_bytes(stored)
    rewrite(path, {}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="compressed"):
        read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("models/model.json", "{}")
    with pytest.raises(CheckpointError, match=r"a zip archive that holds models/model\.json"):
        read_checkpoint(path)


def samples(folder: Path) -> dict[str, bytes]:
    net = small_net()
    state = OrderedDict(net.state_dict())
    content: dict[str, bytes] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value, legacy in (
            ("zip", {"state_dict": state, "epoch": 3}, False),
            ("legacy", {"state_dict": state, "epoch": 3}, True),
            ("module-zip", net, False),
            ("module-legacy", net, True),
        ):
            content[name] = save(folder / name, value, legacy=legacy).read_bytes()
    save_file(net.state_dict() | {"grid": net.grid.contiguous()}, folder / "safetensors")
    content["safetensors"] = (folder / "safetensors").read_bytes()
    return content


def refusal(path: Path) -> CheckpointError | None:
    """What reading said against the file; any other exception is a fault."""
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        return error
    return None


def spoiled(content: bytes, chance: random.Random) -> bytes:
    if chance.random() < 0.25:
        return content[: chance.randrange(len(content))]
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 3, 10))):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("name", ["zip", "legacy", "module-zip", "module-legacy", "safetensors"])
def test_spoiled_files_never_end_in_a_traceback(tmp_path: Path, name: str) -> None:
    content = samples(tmp_path)[name]
    chance = random.Random(20)
    path = tmp_path / "spoiled"
    refused = 0
    for _ in range(200):
        path.write_bytes(spoiled(content, chance))
        refused += refusal(path) is not None
    assert refused > 50


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_spoiled_pickles_never_end_in_a_traceback(tmp_path: Path, legacy: bool) -> None:
    """The pickle alone is spoiled, with the checksum right: only the machine's own checks stand in the way."""
    kind = "legacy" if legacy else "zip"
    content = samples(tmp_path)[f"module-{kind}"]
    path = tmp_path / "spoiled"
    chance = random.Random(21)
    if not legacy:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            pickled = archive.read(f"module-{kind}/data.pkl")
    for _ in range(200):
        if legacy:
            changed = bytearray(content)
            for _ in range(3):
                changed[chance.randrange(20, len(content) * 3 // 4)] = chance.choice(content)
            path.write_bytes(changed)
        else:
            path.write_bytes(content)
            rewrite(path, {"data.pkl": spoiled(pickled, chance)})
        refusal(path)
