"""A recipe for a checkpoint at hand: that of the network whose keys it has, pointing at the file."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from deploykit.atomic import replacing
from deploykit.checkpoint import read_checkpoint
from deploykit.errors import UsageError
from deploykit.network import recognise
from deploykit.recipe import load_recipe

_CHECKPOINT_TABLES = re.compile(r"^\[checkpoint(?:\.[^\]\n]*)?\]\n.*?(?=^\[|\Z)", re.MULTILINE | re.DOTALL)


def write_starter(
    checkpoint: Path, output: Path, *, key: str | None = None, overwrite: bool = False
) -> tuple[str, ...]:
    """Write the recipe of the known network that ``checkpoint`` belongs to; return what a person should check.

    Raises:
        CheckpointError: the file cannot be read, or belongs to no known network: which came nearest is said.
        UsageError: ``output`` exists already, or cannot be written.
    """
    if output.exists() and not overwrite:
        raise UsageError(
            "The recipe exists already.",
            where=str(output),
            next_step="choose another name with --output, or give --force",
        )
    read = read_checkpoint(checkpoint, key=key)
    known = recognise(read)
    section = known.file.checkpoint
    lines = [
        "[checkpoint]",
        f"path = {_quoted(Path(os.path.relpath(checkpoint, output.parent)).as_posix())}",
        f'sha256 = "{read.sha256}"',
    ]
    if key:
        lines.append(f"key = {_quoted(key)}")
    if section and section.key_map:
        pairs = ", ".join(f"{_quoted(a)} = {_quoted(b)}" for a, b in section.key_map.items())
        lines.append(f"key_map = {{ {pairs} }}")
    rest = _CHECKPOINT_TABLES.sub("", known.path.read_text("utf-8")).rstrip()
    text = "\n".join([rest, "", *lines, ""])
    try:
        with replacing(output) as temporary:
            temporary.write_text(text, "utf-8")
            load_recipe(temporary)
    except OSError as error:
        raise UsageError(
            "The recipe cannot be written.", where=str(output), found=error.strerror or str(error)
        ) from error
    return (
        f"{checkpoint.name} has the keys and shapes of {known.name} ({len(read.tensors)} tensors)",
        "keys do not tell how the network was trained: check mean, scale, colour order and classes in the recipe",
        *read.notes,
    )


def _quoted(text: str) -> str:
    # TOML knows no surrogate pairs, which JSON in ASCII makes of characters beyond the first plane.
    return json.dumps(text, ensure_ascii=False)
