"""One side of a comparison as something that runs: a session of its runtime, with inputs at hand."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.artifact import MANIFEST
from deploykit.errors import ArtifactError, DeploykitError
from deploykit.latency.inputs import build_inputs, samples_of
from deploykit.latency.subjects import Subject, find_subjects
from deploykit.recipe import Recipe, load_recipe, recipe_from_table
from deploykit.targets.base import Array, Runtime, require_fixed_shapes
from deploykit.targets.table import part

if TYPE_CHECKING:
    from torch import Tensor

    from deploykit.network import LoadedNetwork

# Runs one inference on the input of that number, counted round and round.
Run = Callable[[int], object]


@dataclass(frozen=True)
class Contender:
    """One side: the exported file at ``path``, or without one the network of ``recipe`` in PyTorch eager.

    ``recipe`` describes the inputs of a file whose manifest does not; ``photos`` are what it runs on, else a synthetic
    portrait, or uniform values where nothing describes the inputs.
    """

    name: str
    path: Path | None
    recipe: str | None = None
    photos: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Opened:
    """What is known of a contender once it was open: sizes of its inputs, and what runs it."""

    input_shapes: tuple[tuple[int, ...], ...]
    runtime: str


class Entry:
    """A contender with everything read that its sessions share; each ``session`` opens the file anew.

    ``inputs`` are those of a file once ``look`` was called, a dictionary for each photo.
    """

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        self.threads = threads
        self._subject: Subject | None = None
        self._network: LoadedNetwork | None = None
        self.inputs: tuple[dict[str, Array], ...] = ()
        self._tensors: tuple[tuple[Tensor, ...], ...] = ()
        if contender.path is None:
            # Only here, so that files are compared without PyTorch's long import.
            import torch

            from deploykit.network import load_network

            assert contender.recipe is not None
            torch.set_num_threads(threads)
            self._network = load_network(load_recipe(contender.recipe))
        else:
            (self._subject,) = find_subjects([contender.path])

    def look(self) -> Opened:
        """Return what the contender is, after one run of it. Raises ArtifactError where it does not load or run."""
        if self._network is not None:
            import torch

            with self.session() as run:
                run(0)
            shapes = tuple(item.shape for item in self._network.recipe.file.inputs)
            return Opened(shapes, f"PyTorch {torch.__version__}")
        with self._open() as runtime:
            require_fixed_shapes(self._file.path, runtime.inputs)
            self.inputs = build_inputs(runtime.inputs, self._recipe(), self.contender.photos)
            try:
                runtime.run(self.inputs[0])
            except DeploykitError:
                raise
            except Exception as error:
                # Runtimes raise bare C++ exceptions whose classes they do not export under stable names.
                raise ArtifactError(
                    "The file loads, but its runtime cannot run it.",
                    where=str(self._file.path),
                    found=str(error).strip()[:400],
                    expected=f"a model that {runtime.name} runs on inputs of the shapes and types that it declares",
                ) from error
            return Opened(tuple(record.shape for record in runtime.inputs), runtime.name)

    @contextmanager
    def session(self) -> Iterator[Run]:
        """Yield what runs one inference in a new session; of PyTorch eager, in a new copy of the network."""
        if self._network is not None:
            yield self._eager(self._network)
            return
        with self._open() as runtime:
            feeds, count = self.inputs, len(self.inputs)
            yield lambda index: runtime.run(feeds[index % count])

    @property
    def _file(self) -> Subject:
        assert self._subject is not None
        return self._subject

    def _open(self) -> Runtime:
        opened: Runtime = part(self._file.target, "runtime").open_artifact(self._file.path, self.threads)
        return opened

    def _eager(self, network: LoadedNetwork) -> Run:
        import torch

        from deploykit.verify.reference import as_tensors

        if not self._tensors:
            samples = samples_of(network.recipe, self.contender.photos)
            self._tensors = tuple(as_tensors(one, network.recipe, torch.float32) for one in samples)
        feeds, count = self._tensors, len(self._tensors)
        module = copy.deepcopy(network.module)

        def run(index: int) -> object:
            with torch.inference_mode():
                return module(*feeds[index % count])

        return run

    def _recipe(self) -> Recipe | None:
        artifact = self._file.artifact
        if artifact is not None and artifact.recipe_table:
            return recipe_from_table(artifact.recipe_table, self._file.path.parent / MANIFEST)
        return load_recipe(self.contender.recipe) if self.contender.recipe else None
