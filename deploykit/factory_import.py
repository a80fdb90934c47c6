"""Import of a network's factory from the recipe's own folder, without mixing up the modules of two recipes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

# Modules that came from folders of recipes, by folder: two recipes may each have a ``net.py``, and Python keeps one
# module per name. Those of another folder are set aside while a factory is imported, and put back for their own.
_BROUGHT: dict[Path, dict[str, ModuleType]] = {}


def import_from(name: str, folders: tuple[Path, ...]) -> ModuleType:
    """Return the module ``name``, looked up in ``folders`` first; ``sys.path`` is as before afterwards.

    Raises ImportError where a module of that name from another place is loaded already, and whatever the import
    of the module itself raises.
    """
    # A folder that Python searches anyway is the environment's: its modules are shared with the caller.
    known = {Path(entry).resolve() for entry in sys.path}
    own = tuple(dict.fromkeys(folder for folder in folders if folder not in known))
    with _searched(own):
        module = importlib.import_module(name)
        found = _file_of(name, folders)
        loaded = getattr(module, "__file__", None)
        if found is not None and loaded is not None and Path(loaded).resolve() != found:
            raise ImportError(f"{name} is already loaded from {loaded}, and would be taken instead of {found}")
    return module


@contextmanager
def _searched(folders: tuple[Path, ...]) -> Iterator[None]:
    path = list(sys.path)
    for brought in _BROUGHT.values():
        for name in brought:
            sys.modules.pop(name, None)
    for folder in folders:
        sys.modules.update(_BROUGHT.get(folder, {}))
    sys.path[:0] = [str(folder) for folder in folders]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            loaded = getattr(module, "__file__", None)
            for folder in folders:
                if loaded and Path(loaded).resolve() == _file_of(name, (folder,)):
                    _BROUGHT.setdefault(folder, {})[name] = module


def _file_of(name: str, folders: tuple[Path, ...]) -> Path | None:
    """Return the source file of the module ``name`` in the first of ``folders`` that has it."""
    for folder in folders:
        base = folder.joinpath(*name.split("."))
        for candidate in (base / "__init__.py", base.with_name(base.name + ".py")):
            if candidate.is_file():
                return candidate.resolve()
    return None
