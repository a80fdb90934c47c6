"""From a recipe and a checkpoint to an evaluated network; which recipe a bare checkpoint belongs to."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from deploykit.checkpoint import Checkpoint, load_into, read_checkpoint
from deploykit.errors import CheckpointError, NotFiniteError, RecipeError
from deploykit.factory_import import import_from, searching
from deploykit.models.table import MODELS
from deploykit.recipe import Recipe, bundled_recipes, load_recipe

# Above this share of equal shapes, a checkpoint is compared by name with a network.
NEARLY_ALL = 0.9


@dataclass(frozen=True)
class LoadedNetwork:
    """A network in training form with trained float32 weights, in evaluation mode."""

    recipe: Recipe
    module: nn.Module
    checkpoint_path: Path
    checkpoint_sha256: str
    notes: tuple[str, ...]


def build_network(recipe: Recipe) -> nn.Module:
    """Return the recipe's network with fresh weights, in evaluation mode.

    A factory ``package.module:name`` is looked up in the installed packages, the recipe's folder and the current
    folder. Raises RecipeError, with its cause chained, where it cannot be imported or called, fails, or returns no
    module.
    """
    section = recipe.file.network
    location = MODELS.get(section.factory, section.factory)
    module_name, separator, attribute = location.partition(":")
    if not separator:
        raise RecipeError(
            "There is no such network.",
            where=f"{recipe.path}: network.factory",
            found=section.factory,
            expected="one of " + ", ".join(MODELS) + ', or "package.module:factory" from your own code',
        )
    own_code = () if section.factory in MODELS else (recipe.path.parent.resolve(), Path.cwd())
    # A tensor that remembers how it was computed, as weight normalisation leaves one, could not be copied.
    with searching(own_code), torch.random.fork_rng(devices=[]), torch.no_grad():
        factory = _factory(recipe, module_name, attribute, own_code)
        _check_arguments(recipe, location, factory)
        torch.manual_seed(0)
        try:
            network = factory(**section.arguments)
            evaluated = network.eval() if isinstance(network, nn.Module) else None
        except (Exception, SystemExit) as error:
            raise RecipeError(
                "The network's factory failed.",
                where=f"{recipe.path}: network.factory",
                found=f"{location} with {section.arguments}: {type(error).__name__}: {error}",
                next_step="correct the factory or network.arguments; see the cause with --verbose",
            ) from error
    if not isinstance(network, nn.Module):
        raise RecipeError(
            "The network's factory does not return a network.",
            where=f"{recipe.path}: network.factory",
            found=type(network).__name__,
            expected="a torch.nn.Module",
        )
    if evaluated is not network:
        raise RecipeError(
            "The network's own train() or eval() does not return the network.",
            where=f"{recipe.path}: network.factory",
            found=f"{location}: {type(evaluated).__name__}",
            expected="the module itself, as torch.nn.Module returns it",
            next_step="end the method with: return self",
        )
    return network


def _check_arguments(recipe: Recipe, location: str, factory: Callable[..., object]) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):  # compiled code may have none: then the call itself has to tell
        return
    try:
        signature.bind(**recipe.file.network.arguments)
    except TypeError as error:
        raise RecipeError(
            "The network's factory does not take these arguments.",
            where=f"{recipe.path}: network.arguments",
            found=f"{recipe.file.network.arguments}: {error}",
            expected=f"{location}{signature}",
            next_step=f"give the keyword arguments of {location}",
        ) from error


def _factory(recipe: Recipe, module_name: str, attribute: str, own_code: tuple[Path, ...]) -> Callable[..., object]:
    try:
        value: object = import_from(module_name, own_code)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (Exception, SystemExit) as error:
        raise RecipeError(
            "The network's factory cannot be imported.",
            where=f"{recipe.path}: network.factory",
            found=f"{module_name}:{attribute}: {type(error).__name__}: {error}",
            expected="package.module:factory, importable from here, the recipe's folder or the environment",
            next_step="see the cause with --verbose",
        ) from error
    if not callable(value):
        raise RecipeError(
            "The network's factory cannot be called.",
            where=f"{recipe.path}: network.factory",
            found=type(value).__name__,
            expected="a class or a function that returns a torch.nn.Module",
        )
    return value


def load_network(recipe: Recipe, *, checkpoint: Path | None = None, key: str | None = None) -> LoadedNetwork:
    """Return the recipe's network with the weights of ``checkpoint``, or of the one that the recipe names.

    ``key`` chooses a nested state dict. Raises CheckpointError where there is none, or it does not fit strictly.
    """
    section = recipe.file.checkpoint
    path = checkpoint or recipe.checkpoint_path()
    if path is None:
        raise CheckpointError(
            "The recipe names no checkpoint and none was given.",
            where=str(recipe.path),
            expected="[checkpoint] in the recipe, or --checkpoint FILE",
        )
    read = read_checkpoint(path, key=key or (section.key if section and checkpoint is None else None))
    if checkpoint is None and section is not None and section.sha256 not in (None, read.sha256):
        raise CheckpointError(
            "The checkpoint is not the one that the recipe was written for.",
            where=str(path),
            found=f"sha256 {read.sha256}",
            expected=f"sha256 {section.sha256}",
            next_step="restore the file, or correct checkpoint.sha256 in the recipe",
        )
    loaded, notes = load_into(build_network(recipe), read, section.key_map if section else {})
    return LoadedNetwork(recipe, loaded, path, read.sha256, tuple(dict.fromkeys((*read.notes, *notes))))


def recognise(checkpoint: Checkpoint) -> Recipe:
    """Return the bundled recipe whose network has exactly the keys and shapes of ``checkpoint``.

    Raises CheckpointError, saying how near each known network came, where none fits.
    """
    found = _shapes(checkpoint.tensors)
    distances: list[tuple[float, str, str]] = []
    for name in bundled_recipes():
        recipe = load_recipe(name)
        # Shapes need no values, and a key map changes names alone: most networks are ruled out without being made.
        with torch.device("meta"):
            expected = _shapes(build_network(recipe).state_dict())
        likeness = (expected & found).total() / max(expected.total(), found.total())
        refused = ""
        if likeness > NEARLY_ALL:
            section = recipe.file.checkpoint
            try:
                load_into(build_network(recipe), checkpoint, section.key_map if section else {})
            except NotFiniteError:
                raise
            except CheckpointError as error:
                refused = error.found or error.message
            else:
                return recipe
        distances.append((likeness, name, refused))
    likeness, nearest, refused = max(distances)
    first = ", ".join(list(checkpoint.tensors)[:3])
    if refused:
        raise CheckpointError(
            f"The checkpoint belongs to no network that deploykit knows; {nearest} is near.",
            where=str(checkpoint.path),
            found=f"compared with {nearest}: {refused}",
            expected="exactly the keys and shapes of a bundled network",
            next_step=f"if it is {nearest}, save all its tensors under its names, or give a recipe with a key_map; "
            "else write a recipe of its own, as the README shows",
        )
    raise CheckpointError(
        "The checkpoint belongs to no network that deploykit knows.",
        where=str(checkpoint.path),
        found=f"{len(checkpoint.tensors)} tensors ({first}, ...); nearest by shapes is {nearest}, {likeness:.0%} alike",
        expected="the keys and shapes of a bundled network",
        next_step='write a recipe with factory = "package.module:factory", as the README shows',
    )


def _shapes(tensors: Mapping[str, torch.Tensor]) -> Counter[tuple[int, ...]]:
    """Return how often each shape occurs, but for the counters (no dimension), which a checkpoint may lack."""
    return Counter(tuple(value.shape) for value in tensors.values() if value.ndim)


def recipe_for(name: str | Path | None, checkpoint: Path | None, default: str | Path, key: str | None = None) -> Recipe:
    """Return the recipe named, else the one that a given checkpoint's keys belong to, else the default one."""
    if name is not None:
        return load_recipe(name)
    if checkpoint is not None:
        return recognise(read_checkpoint(checkpoint, key=key))
    return load_recipe(default)
