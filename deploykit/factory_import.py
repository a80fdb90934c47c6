"""Import of a network's factory from the recipe's own folder, without mixing up the modules of two recipes."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

# Modules that came from folders of recipes, by folder: two recipes may each have a ``net.py``, and Python keeps one
# module per name. Those of other folders are set aside while a factory runs, and come back for their own.
_BROUGHT: dict[Path, dict[str, ModuleType]] = {}


@contextmanager
def searching(folders: tuple[Path, ...]) -> Iterator[None]:
    """Import from ``folders`` first, and see none of the modules that other recipes brought from theirs.

    ``sys.path`` is as before afterwards. A folder that is on it anyway belongs to the environment: its modules are
    shared with the caller.
    """
    before = list(sys.path)
    known = {Path(entry).resolve() for entry in before}
    own = tuple(dict.fromkeys(folder for folder in folders if folder not in known))
    for brought in _BROUGHT.values():
        for name in brought:
            sys.modules.pop(name, None)
    for folder in own:
        sys.modules.update(_BROUGHT.get(folder, {}))
    sys.path[:0] = [str(folder) for folder in own]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = before
        for name, module in list(sys.modules.items()):
            for folder in own:
                if getattr(module, "__file__", None) in _sources(name, folder):
                    _BROUGHT.setdefault(folder, {})[name] = module


def import_from(name: str, folders: tuple[Path, ...]) -> ModuleType:
    """Return the module ``name``, from the first of ``folders`` that has it, else from the environment.

    Call it inside ``searching``. Raises ImportError where a module of that name from elsewhere is loaded already,
    and whatever the import of the module itself raises.
    """
    module = importlib.import_module(name)
    loaded = getattr(module, "__file__", None)
    found = next((path for folder in folders for path in _sources(name, folder) if Path(path).is_file()), None)
    if loaded and found and Path(loaded).resolve() != Path(found).resolve():
        raise ImportError(f"{name} is loaded already from {loaded}, and would be taken instead of {found}")
    return module


def _sources(name: str, folder: Path) -> tuple[str, str]:
    base = folder.joinpath(*name.split("."))
    return str(base / "__init__.py"), f"{base}.py"
