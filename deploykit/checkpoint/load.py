"""From a path to named tensors: hashing, safe reading, choosing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from deploykit.checkpoint.formats import open_checkpoint
from deploykit.checkpoint.recognise import EXPECTED
from deploykit.checkpoint.refusal import listed
from deploykit.checkpoint.select import select, strip_prefixes
from deploykit.checkpoint.tensors import TensorReader
from deploykit.errors import CheckpointError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The tensors of one file.

    ``tensors`` are on the CPU in their saved type and share memory where they did in the file; ``sha256`` is of
    the file's bytes; ``format`` is torch-zip, torch-legacy, torchscript or safetensors; ``selected_key`` is the
    dotted key under which the tensors lay ("" for the root); ``notes`` say what was chosen, stripped or left out.
    """

    path: Path
    sha256: str
    format: str
    tensors: dict[str, torch.Tensor]
    selected_key: str
    notes: tuple[str, ...]


def sha256_file(path: Path) -> str:
    """Return the sha256 of the file's bytes in hexadecimal. Raises CheckpointError when it cannot be read."""
    digest = hashlib.sha256()
    _require_file(path)
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def read_checkpoint(path: Path, *, key: str | None = None) -> Checkpoint:
    """Return the network's tensors in the file at ``path``; nothing in the file is executed.

    Read by content, whatever the suffix: torch.save's zip and legacy formats, TorchScript archives, safetensors;
    a state dict, one wrapped in a dictionary, or a whole pickled network. ``key`` chooses a nested mapping
    ("ema.module"); None takes the usual one. Raises CheckpointError, naming the file, in every other case.
    """
    _require_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        opened = open_checkpoint(content)
        selection = strip_prefixes(select(opened.root, key))
        reader = TensorReader(opened.storage_bytes, swapped=opened.swapped)
        tensors = {name: reader.tensor(name, leaf) for name, leaf in selection.leaves.items()}
    except CheckpointError as error:
        raise CheckpointError(
            error.message,
            where=error.where or str(path),
            found=error.found,
            expected=error.expected,
            next_step=error.next_step,
        ) from error
    notes = list(selection.notes)
    if opened.foreign:
        count = f"{len(opened.foreign)} foreign {'class' if len(opened.foreign) == 1 else 'classes'}"
        notes.append(f"replaced {count} by inert stand-ins: {listed(opened.foreign)}")
    digest = hashlib.sha256(content).hexdigest()
    return Checkpoint(path, digest, opened.format, tensors, selection.key, tuple(notes))


def _require_file(path: Path) -> None:
    """Refuse what is no ordinary file: a pipe or device would be read without end."""
    try:
        if path.is_file():
            return
        kind = "a directory" if path.is_dir() else "no ordinary file" if path.exists() else "no such file"
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    raise CheckpointError(
        "the checkpoint cannot be read",
        where=str(path),
        found=kind,
        expected=EXPECTED,
        next_step="give the checkpoint file inside it" if kind == "a directory" else "check the path",
    )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = getattr(error, "strerror", None) or str(error)
    return CheckpointError(
        "the checkpoint cannot be read",
        where=str(path),
        found=reason,
        expected=EXPECTED,
        next_step="check the path and the file's permissions",
    )
