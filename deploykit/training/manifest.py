"""``checkpoints/manifest.toml``: what each bundled checkpoint is, came from and scores."""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DIGITS = 4


@dataclass(frozen=True)
class Entry:
    """One checkpoint; seeds are the first and the last one; IoUs are means over images of ``input_size``, in pixels.

    ``note`` says how the past of the file departs from what ``command`` does today, if it does.
    """

    recipe: str
    sha256: str
    generator_version: int
    train_seeds: tuple[int, int]
    held_out_seeds: tuple[int, int]
    seed: int
    loss: str
    command: str
    torch_version: str
    input_size: tuple[int, int]
    held_out_foreground_iou: float
    held_out_two_class_miou: float
    photo_ious: dict[str, float]
    note: str = ""


def _toml(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{DIGITS}f}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    # A JSON string is a TOML basic string.
    return json.dumps(value)


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """Return the entries by file name; empty where there is no manifest yet."""
    if not path.exists():
        return {}
    return {str(name): dict(entry) for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items()}


def update_manifest(path: Path, entry: Entry) -> None:
    """Write ``entry`` into the manifest, leaving the other checkpoints as they are."""
    entries = {**read_manifest(path), f"{entry.recipe}.pt": asdict(entry)}
    blocks = ["# Written by `make checkpoints`; see README.md for what these files are good for.\n"]
    for name in sorted(entries):
        rows = "".join(f"{key} = {_toml(value)}\n" for key, value in entries[name].items())
        blocks.append(f'["{name}"]\n{rows}')
    path.write_text("\n".join(blocks), encoding="utf-8")
