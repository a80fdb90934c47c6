"""TOML files that a user writes: read, held against their model, and every invalid key said in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deploykit.errors import RecipeError

Model = TypeVar("Model", bound=BaseModel)
_SHOWN = 10
_WORDS = {
    "extra_forbidden": "no such key",
    "missing": "this key, which is missing",
    "model_type": "a table",
    "dict_type": "a table",
    "tuple_type": "a list",
    "string_type": "a text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "invalid-json-value": "a text, number, boolean, list or table",
    "string_pattern_mismatch": "a text that matches {pattern}",
    "string_too_short": "at least {min_length} characters",
}


def read_toml(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of the file at ``path`` and its table.

    Raises RecipeError where there is no file, it cannot be read, or it is not TOML.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise RecipeError("The recipe cannot be read.", where=str(path), found=what, expected="a .toml file")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            "The recipe cannot be read.", where=str(path), found=error.strerror, expected="a readable .toml file"
        ) from error
    try:
        return raw, tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RecipeError(
            "The file is not valid TOML.",
            where=str(path),
            found=str(error),
            expected="TOML 1.0 in UTF-8",
            next_step="correct it; weights are given with --checkpoint, not in the recipe's place",
        ) from error


def validated(model: type[Model], table: dict[str, Any], path: Path) -> Model:
    """Return ``table`` as ``model``, or raise a RecipeError that names each invalid key of the file at ``path``."""
    try:
        return model.model_validate(table)
    except ValidationError as error:
        count = error.error_count()
        raise RecipeError(
            f"The file has {count} invalid {'entry' if count == 1 else 'entries'}.",
            where=str(path),
            found="; ".join(_row(problem) for problem in error.errors()[:_SHOWN]),
            expected="keys and values as in the recipe reference, docs/recipes.md",
            next_step="correct the named keys",
        ) from error


def _row(problem: ErrorDetails) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "(the whole file)"
    found = "" if problem["type"] == "missing" else f", found {_shortened(problem['input'])}"
    words = _WORDS.get(problem["type"])
    if words is None:
        expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    else:
        expected = words.format_map(problem.get("ctx", {}))
    return f"{key}: expected {expected}{found}"


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
