"""What a file is, by its first bytes: the formats that are read, and the usual mistakes by name."""

from __future__ import annotations

from deploykit.checkpoint.refusal import shown
from deploykit.errors import CheckpointError

ZIP = "zip"
LEGACY = "legacy"
SAFETENSORS = "safetensors"

EXPECTED = "a checkpoint of PyTorch (.pth, .pt, .ckpt) or a .safetensors file"
_SAVE_AGAIN = "save the trained network with torch.save(network.state_dict(), path)"
_UNPACK = "unpack it and give the checkpoint inside"
_DOWNLOAD = "download the file itself: the link led to something else"

# torch.save's legacy format begins with this number, as a pickle of any protocol.
_LEGACY_MAGIC = (b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", b"119547037146038801333356")
_MAX_SAFETENSORS_HEADER = 100_000_000

# (offset, bytes, what it is, next step), first match wins.
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a git-lfs pointer, not the file that it stands for", "run `git lfs pull`"),
    (0, b"\x89PNG", "a PNG image", "give the checkpoint, not an image"),
    (0, b"\xff\xd8\xff", "a JPEG image", "give the checkpoint, not an image"),
    (0, b"%PDF", "a PDF document", _DOWNLOAD),
    (0, b"\x1f\x8b", "a gzip archive", _UNPACK),
    (0, b"BZh", "a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ", "an xz archive", _UNPACK),
    (0, b"7z\xbc\xaf", "a 7z archive", _UNPACK),
    (0, b"Rar!", "a RAR archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", _UNPACK),
    (257, b"ustar", "a tar archive (also the format of torch.save before June 2017)", _UNPACK),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it", "convert it to a PyTorch state dict"),
    (0, b"\x93NUMPY", "a NumPy array", _SAVE_AGAIN),
    (4, b"TFL3", "a TFLite model", "give the trained checkpoint: deploykit writes TFLite, it does not read it"),
    (4, b"PTMF", "a mobile PyTorch flatbuffer", _SAVE_AGAIN),
    (0, b"GGUF", "a GGUF file", _SAVE_AGAIN),
    (0, b"MZ", "a Windows program", _DOWNLOAD),
    (0, b"\x7fELF", "a Linux program", _DOWNLOAD),
)


def recognise(content: bytes) -> str:
    """Return ZIP, LEGACY or SAFETENSORS for ``content``; CheckpointError says what else it is.

    A recognised file may still be damaged or hold no tensors.
    """
    if not content:
        raise _refused("an empty file", "copy or download it again")
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return ZIP
    if any(magic in content[:64] for magic in _LEGACY_MAGIC):
        return LEGACY
    for offset, magic, what, next_step in _FOREIGN:
        if content[offset : offset + len(magic)] == magic:
            raise _refused(what, next_step)
    if int.from_bytes(content[:8], "little") <= _MAX_SAFETENSORS_HEADER and content[8:9] == b"{":
        return SAFETENSORS
    if content[0] == 0x80 and len(content) > 2 and content[1] <= 5:
        raise _refused("a Python pickle that torch.save did not write", _SAVE_AGAIN)
    # An ONNX file is a protobuf: field 1 (ir_version), then the producer's name or a graph.
    if content[0] == 0x08 and len(content) > 2 and content[1] < 32 and content[2] in (0x12, 0x3A, 0x42):
        raise _refused("an ONNX model", "give the trained checkpoint: deploykit writes ONNX, it does not read it")
    text = _as_text(content[:256])
    if text is None:
        raise _refused(f"bytes of no known format, first {content[:8].hex(' ')}", _SAVE_AGAIN)
    if text.lstrip().lower().startswith(("<!doctype", "<html", "<?xml", "<head")):
        raise _refused("a web page", _DOWNLOAD)
    raise _refused(f"a text file, first {shown(text.strip()[:40])!r}", "give the checkpoint itself")


def _as_text(head: bytes) -> str | None:
    """Return ``head`` as text, or None for binary content."""
    if any(byte < 32 and byte not in b"\t\n\r\f" for byte in head):
        return None
    return head.decode("utf-8", errors="ignore") or None


def _refused(what: str, next_step: str) -> CheckpointError:
    return CheckpointError("this is not a checkpoint", found=what, expected=EXPECTED, next_step=next_step)
