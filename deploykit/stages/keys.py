"""What a stage is decided by: contents of files and versions, each under a name that a person can be told.

Only contents count, never dates: a file that is written again as it was changes nothing. Imports no framework.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.metadata
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

from deploykit.gate.baseline import DEFAULT_FILE as BASELINE
from deploykit.latency.agent.machine import facts
from deploykit.models.table import MODELS
from deploykit.recipe import PROJECT_FILE, Recipe
from deploykit.records import to_json
from deploykit.stages.records import Settings, Stage, StageKind
from deploykit.targets.table import TARGETS
from deploykit.vocab import Target

_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = ("torch", "numpy", "scipy", "opencv-python-headless", "safetensors")
_SHORT = 16
_EXPORTING = ("input_kind", "output_kind")
_CALIBRATING = ("calibration_images", "max_drop")
_JUDGED_BY = ("samples", "clips")


def key_of(inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 of ``inputs``, whatever their order."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in words what of ``before`` is another ``now``; an empty text where nothing is."""
    changed = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
    words = []
    for name in changed:
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            words.append(f"{name} is {'new' if old is None else 'gone'}")
        else:
            plain = len(old) < _SHORT and len(new) < _SHORT
            words.append(f"{name} changed" + (f" from {old} to {new}" if plain else ""))
    return ", ".join(words)


class Inputs:
    """What decides the stages of one run; each file is read once, and as it is when it is first asked for.

    ``checkpoint_key`` and ``max_seconds`` are options of the run, ``folder`` is the one whose ``deploykit.toml`` and
    baseline count.
    """

    def __init__(self, folder: Path, *, checkpoint_key: str | None = None, max_seconds: float = 0.0) -> None:
        self._folder = folder
        self._checkpoint_key = checkpoint_key
        self._max_seconds = max_seconds
        self._known: dict[Path, str] = {}

    def of(
        self, stage: Stage, recipe: Recipe | None, settings: Settings | None, checkpoint: Path | None
    ) -> dict[str, str]:
        """Return what decides ``stage`` besides the artifacts that it takes: name → digest or value."""
        targets = (stage.target,) if stage.target else tuple(Target)
        found = {"deploykit's own code": _own_code(), "python": platform.python_version(), **_versions(targets)}
        if recipe is not None:
            found["the recipe"] = recipe.sha256
            found |= self._network_code(recipe)
        if checkpoint is not None:
            found["the checkpoint"] = self.digest(checkpoint)
            found["--checkpoint-key"] = self._checkpoint_key or ""
        if settings is not None:
            found |= self._of_settings(stage, settings)
        if stage.alone:
            found["the machine"] = str(facts()["name"])
        if stage.kind is StageKind.REPORT:
            # It says what cannot be measured here.
            found["the system"] = sys.platform
        if stage.kind is StageKind.BENCH:
            found["--max-seconds"] = f"{self._max_seconds:g}"
        if stage.kind is StageKind.GATE:
            for path in (self._folder / PROJECT_FILE, self._folder / BASELINE):
                found[path.name] = self.digest(path) if path.is_file() else "none"
            found["CI"] = os.environ.get("CI", "")
        return found

    def digest(self, path: Path) -> str:
        """Return the SHA-256 of the file at ``path``, or of names and contents of all files below the folder there."""
        if path not in self._known:
            if path.is_dir():
                inside = sorted(one for one in path.rglob("*") if one.is_file())
                self._known[path] = key_of({one.relative_to(path).as_posix(): self.digest(one) for one in inside})
            else:
                self._known[path] = _sha256(path)
        return self._known[path]

    def _of_settings(self, stage: Stage, settings: Settings) -> dict[str, str]:
        values = {name: str(value) for name, value in to_json(settings).items()}
        if stage.kind is StageKind.EXPORT:
            chosen = {name: values[name] for name in _EXPORTING}
            if stage.precision is not None and not stage.precision.is_float:
                chosen |= {name: values[name] for name in _CALIBRATING}
                chosen["the calibration images"] = self._images(settings.calibration)
            return chosen
        if stage.kind is StageKind.EVALUATE:
            return {**{name: values[name] for name in _JUDGED_BY}, "the evaluated images": self._images(settings.data)}
        return {}

    def _images(self, folder: Path | None) -> str:
        return "synthetic portraits" if folder is None else self.digest(folder)

    def _network_code(self, recipe: Recipe) -> dict[str, str]:
        """Return the digest of the user's own code that builds the network; nothing where it is deploykit's.

        Of a package it is every Python file in it, of a single module every one beside it. Installed packages are told
        by names, sizes and dates of their files, which change with the version. What these import is not seen.
        """
        factory = recipe.file.network.factory
        if factory in MODELS or ":" not in factory:
            return {}
        top = factory.partition(":")[0].partition(".")[0]
        search = [str(recipe.path.parent.resolve()), str(Path.cwd()), *sys.path]
        spec = importlib.machinery.PathFinder.find_spec(top, search)
        if spec is None:
            return {}
        roots = [Path(one) for one in spec.submodule_search_locations or ()]
        files = sorted(path for root in roots for path in root.rglob("*.py"))
        if not roots and spec.origin and Path(spec.origin).is_file():
            files = sorted(Path(spec.origin).parent.glob("*.py"))
        installed = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))
        told = {
            str(path): f"{path.stat().st_size} {path.stat().st_mtime_ns}"
            if str(path).startswith(installed)
            else self.digest(path)
            for path in files
        }
        return {"the network's code": key_of(told)}


def contents_of(folder: Path, *, but: Collection[str]) -> str:
    """Return the digest of all files below ``folder`` by name and content, without hidden ones and those of ``but``."""
    told = {}
    for place, inner, names in os.walk(folder):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for path in (Path(place) / name for name in names if not name.startswith(".")):
            told[path.relative_to(folder).as_posix()] = _sha256(path)
    return key_of({name: digest for name, digest in told.items() if name not in but})


@cache
def _own_code() -> str:
    """Return the digest of every Python file of deploykit, by content."""
    return key_of({path.relative_to(_PACKAGE).as_posix(): _sha256(path) for path in sorted(_PACKAGE.rglob("*.py"))})


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _versions(targets: tuple[Target, ...]) -> dict[str, str]:
    names = [*_LIBRARIES, *(name for one in targets for name in TARGETS[one].packages.values())]
    return {name: _version(name) for name in names}


@cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
