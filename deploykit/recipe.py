"""Recipes: TOML files that say which network, which inputs, which outputs and how exact a file has to be."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploykit.errors import RecipeError, UsageError
from deploykit.recipe_file import CheckpointSection, ProjectFile, RecipeFile, Variant
from deploykit.recipe_tensors import MOST_VALUES, Feedback, Input, Output, Resize
from deploykit.resources import bundled
from deploykit.toml_file import read_toml, validated

__all__ = [
    "CheckpointSection",
    "Feedback",
    "Input",
    "Output",
    "ProjectFile",
    "Recipe",
    "RecipeFile",
    "Resize",
    "Variant",
    "bundled_recipes",
    "default_recipe",
    "load_recipe",
    "project_file",
    "project_recipe",
    "recipe_from_table",
]

PROJECT_FILE = "deploykit.toml"
DEFAULT_RECIPE = "sinet"


@dataclass(frozen=True)
class Recipe:
    """A validated recipe and where it came from. ``sha256`` is that of the file's bytes."""

    file: RecipeFile
    path: Path
    sha256: str

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.file.name

    def deployed(self) -> tuple[Output, ...]:
        """Return the outputs that the exported file has."""
        return tuple(output for output in self.file.outputs if output.deploy)

    def checkpoint_path(self) -> Path | None:
        """Return where the recipe's checkpoint is, or None where it names none."""
        path = self.file.checkpoint and self.file.checkpoint.path
        return (self.path.parent / path).resolve() if path else None

    def with_size(self, height: int, width: int) -> Recipe:
        """Return this recipe with another input size, recorded in the shape only.

        Every image input gets it, and with them the inputs that take the feedback of a frame of the same size. Raises
        UsageError where the size is not positive or too large, no input is an image, or feedback has another size.
        """
        if height < 1 or width < 1 or 3 * height * width > MOST_VALUES:
            raise UsageError(
                "The input size is out of range.",
                found=f"{height}x{width}",
                expected=f"HxW, for example 256x192, from 1x1 to {MOST_VALUES} values in three channels",
            )
        images = [item for item in self.file.inputs if item.kind == "image"]
        fed = [item for item in self.file.inputs if item.feedback is not None]
        if not images:
            raise UsageError(
                "The recipe has no image input whose size could change.",
                where=str(self.path),
                found=", ".join(f"{item.name} {list(item.shape)}" for item in self.file.inputs),
                next_step="change the shape in the recipe",
            )
        before = images[0].shape[-2:]
        other = [item for item in (*images, *fed) if item.shape[-2:] != before]
        if fed and other:
            raise UsageError(
                "The input size cannot change: it is not clear what the size of the feedback becomes.",
                where=str(self.path),
                found=", ".join(f"{item.name} {list(item.shape)}" for item in (*images, *fed)),
                expected="inputs with feedback at the size of the image",
                next_step="change both shapes in the recipe",
            )
        inputs = tuple(
            item.model_copy(update={"shape": (*item.shape[:-2], height, width)})
            if item.kind == "image" or item.feedback is not None
            else item
            for item in self.file.inputs
        )
        return Recipe(self.file.model_copy(update={"inputs": inputs}), self.path, self.sha256)

    def variant(self, name: str) -> Variant:
        """Return the variant called ``name``; an unknown one is an error that lists those there are."""
        for variant in self.file.variants:
            if variant.name == name:
                return variant
        names = ", ".join(variant.name for variant in self.file.variants) or "none"
        raise UsageError("The recipe has no such variant.", where=str(self.path), found=name, expected=names)


def bundled_recipes() -> dict[str, Path]:
    """Return name → path of every recipe that comes with deploykit, in order of name."""
    return {path.stem: path for path in sorted(bundled("recipes").glob("*.toml"), key=lambda path: path.stem)}


def load_recipe(name: str | Path) -> Recipe:
    """Return the recipe called ``name``, or the one in the file at that path.

    Raises:
        RecipeError: no such recipe or file, not TOML, or not valid: file, key, found and expected are named.
    """
    known = bundled_recipes()
    path = known.get(str(name), Path(name))
    if str(name) not in known and path.suffix != ".toml" and not path.exists():
        raise RecipeError(
            "There is no such recipe.",
            found=str(name),
            expected="a bundled recipe (" + ", ".join(known) + ") or the path of a .toml file",
            next_step="list them with: deploykit recipes",
        )
    raw, table = read_toml(path)
    return Recipe(validated(RecipeFile, table, path), path.resolve(), hashlib.sha256(raw).hexdigest())


def recipe_from_table(table: dict[str, Any], path: Path) -> Recipe:
    """Return the recipe in ``table``, as the manifest at ``path`` keeps it."""
    file = validated(RecipeFile, table, path)
    return Recipe(file, path, hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest())


def project_recipe(folder: Path) -> str | Path | None:
    """Return the recipe named in ``folder``'s ``deploykit.toml``, or None where there is no such file."""
    project = project_file(folder)
    if project is None:
        return None
    return folder / project.recipe if project.recipe.endswith(".toml") else project.recipe


def project_file(folder: Path) -> ProjectFile | None:
    """Return ``folder``'s ``deploykit.toml``, or None where there is none."""
    path = folder / PROJECT_FILE
    if not path.is_file():
        return None
    _, table = read_toml(path)
    return validated(ProjectFile, table, path)


def default_recipe(folder: Path) -> str | Path:
    """Return the recipe named in ``folder``'s ``deploykit.toml``, else the bundled default."""
    return project_recipe(folder) or DEFAULT_RECIPE
