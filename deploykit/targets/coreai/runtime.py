"""Run a Core AI asset with Apple's own runtime, in a process of its own."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from deploykit.records import TensorRecord
from deploykit.targets.base import Array, check_inputs
from deploykit.targets.coreai.client import Child
from deploykit.vocab import Layout


class CoreAIRuntime:
    """An open asset. Apple's runtime chooses its own threads: ``threads`` bounds nothing."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._path = path
        self._child = Child(path)
        try:
            found, _ = self._child.ask("open")
        except BaseException:
            self._child.close()
            raise
        self.inputs = tuple(_record(*item) for item in found["inputs"])
        self.outputs = tuple(_record(*item) for item in found["outputs"])

    @property
    def name(self) -> str:
        """The runtime with its version."""
        return f"Core AI, coreai-core {importlib.metadata.version('coreai-core')} (CPU)"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return name → array of every output."""
        check_inputs(self._path, self.inputs, inputs)
        _, arrays = self._child.ask("run", inputs)
        return {record.name: arrays[record.name] for record in self.outputs}

    def __enter__(self) -> Self:
        """Return the open runtime."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process that holds the asset."""
        self._child.close()


def _record(name: str, shape: list[int], dtype: str) -> TensorRecord:
    return TensorRecord(name, tuple(shape), dtype, Layout.NCHW)


def open_artifact(path: Path, threads: int = 1) -> CoreAIRuntime:
    """Return the asset at ``path``, open and ready to run."""
    return CoreAIRuntime(path, threads)
