"""A small valid recipe as a table, and the same with one value changed."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from deploykit.recipe import Recipe, recipe_from_table

TEXT = """
format_version = 1
name = "small"
description = "a network of this test"
license = "MIT"
source = "this test"

[network]
factory = "sinet"

[[inputs]]
name = "image"
shape = [1, 3, 32, 64]
source = "this test"

[[outputs]]
name = "logits"
meaning = "scores"
classes = ["background", "person"]
"""
TENSOR = {"name": "prior", "kind": "tensor", "shape": [1, 4], "value_range": [-1.0, 1.0], "source": "this test"}
FEEDBACK = {"output": "logits", "class_name": "person", "first": 0.0}
PRIOR = {**TENSOR, "shape": [1, 1, 32, 64], "value_range": [0.0, 1.0], "feedback": FEEDBACK}


def table() -> dict[str, Any]:
    """The valid table."""
    return tomllib.loads(TEXT)


def table_with(path: str, value: object) -> dict[str, Any]:
    """The valid table with one value put at a dotted path."""
    changed = table()
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = changed
    for part in parents:
        place = place[part] if isinstance(place, list) else place.setdefault(part, {})
    place[last] = value
    return changed


def recipe_with(folder: Path, path: str, value: object) -> Recipe:
    """The recipe of that table, as if read from ``folder``."""
    return recipe_from_table(table_with(path, value), folder / "small.toml")


def write_recipe(folder: Path) -> Path:
    """Write the valid recipe into ``folder``; return its path."""
    path = folder / "small.toml"
    path.write_text(TEXT, "utf-8")
    return path
