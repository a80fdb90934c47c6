"""Run a Core ML package: with Core ML on macOS, elsewhere with the reference interpreter of its program."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from deploykit.records import TensorRecord
from deploykit.targets.base import Array, check_inputs
from deploykit.targets.coreml.interpreter import MilInterpreter, ProgramTensor
from deploykit.vocab import ColorOrder, Layout


class InterpreterRuntime:
    """The program of a package, evaluated operation by operation: a reference, not a benchmark."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._path = path
        self._threads = threads
        self._interpreter = MilInterpreter(path)
        self.inputs = tuple(_record(item) for item in self._interpreter.inputs)
        self.outputs = tuple(_record(item) for item in self._interpreter.outputs)

    @property
    def name(self) -> str:
        """The runtime with what it is."""
        return "reference interpreter"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return name → array of every output; an image input takes (1, H, W, 3) RGB pixels."""
        check_inputs(self._path, self.inputs, inputs)
        given: dict[str, Any] = {r.name: inputs[r.name][0] if r.color_order else inputs[r.name] for r in self.inputs}
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            return dict(self._interpreter.run(given))
        finally:
            torch.set_num_threads(before)

    def __enter__(self) -> Self:
        """Return the open program."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the program."""
        del self._interpreter


class CoreMLRuntime(InterpreterRuntime):
    """A package loaded by Core ML itself; the interpreter only tells what it takes and returns."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        super().__init__(path, threads)
        import coremltools as ct

        self._model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)

    @property
    def name(self) -> str:
        """The runtime with the unit that it computes on."""
        return "Core ML (CPU)"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return name → array of every output; an image input takes (1, H, W, 3) RGB pixels."""
        from PIL import Image

        check_inputs(self._path, self.inputs, inputs)
        given = {r.name: Image.fromarray(inputs[r.name][0]) if r.color_order else inputs[r.name] for r in self.inputs}
        values = self._model.predict(given)
        return {record.name: np.asarray(values[record.name]) for record in self.outputs}


def _record(item: ProgramTensor) -> TensorRecord:
    if item.color is not None:
        height, width = item.shape[:2]
        return TensorRecord(item.name, (1, height, width, 3), "uint8", Layout.NHWC, ColorOrder.RGB)
    return TensorRecord(item.name, item.shape, item.dtype, Layout.NCHW)


def open_artifact(path: Path, threads: int = 1) -> InterpreterRuntime:
    """Return the package at ``path``, open and ready to run."""
    return CoreMLRuntime(path, threads) if sys.platform == "darwin" else InterpreterRuntime(path, threads)
