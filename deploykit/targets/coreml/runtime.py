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
from deploykit.targets.coreml.interpreter import ColorLayout, MilInterpreter, ProgramTensor
from deploykit.vocab import ColorOrder, Layout


class InterpreterRuntime:
    """The program of a package, evaluated operation by operation: a reference, not a benchmark.

    An image, input or output, is (1, H, W, 3) in RGB order or (1, H, W, 1) of grey.
    """

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
        """Return name → array of every output. Raises ArtifactError for inputs that do not fit."""
        check_inputs(self._path, self.inputs, inputs)
        given = {i.name: inputs[i.name][0] if i.color else inputs[i.name] for i in self._interpreter.inputs}
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            values = self._interpreter.run(given)
        finally:
            torch.set_num_threads(before)
        return {o.name: values[o.name][None] if o.color else values[o.name] for o in self._interpreter.outputs}

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
        """Return name → array of every output. Raises ArtifactError for inputs that do not fit."""
        check_inputs(self._path, self.inputs, inputs)
        given = {item.name: _given(item, inputs[item.name]) for item in self._interpreter.inputs}
        values = self._model.predict(given)
        return {item.name: _returned(item, values[item.name]) for item in self._interpreter.outputs}


def _given(item: ProgramTensor, array: Array) -> Any:
    """Return an input as Core ML takes it: an image as one of Pillow, halves of grey as its mode F."""
    from PIL import Image

    if item.color is None:
        return array
    pixels = array[0] if item.dtype == "uint8" else array[0].astype(np.float32)
    return Image.fromarray(pixels[..., 0] if item.color is ColorLayout.GRAYSCALE else pixels)


def _returned(item: ProgramTensor, value: Any) -> Array:
    """Return an output of Core ML as the interpreter returns it."""
    if item.color is None:
        return np.asarray(value)
    if item.color is ColorLayout.GRAYSCALE:
        return np.asarray(value).astype(item.dtype)[None, :, :, None]
    return np.asarray(value.convert("RGB"))[None]


def _record(item: ProgramTensor) -> TensorRecord:
    if item.color is None:
        return TensorRecord(item.name, item.shape, item.dtype, Layout.NCHW)
    order = None if item.color is ColorLayout.GRAYSCALE else ColorOrder.RGB
    return TensorRecord(item.name, (1, *item.shape), item.dtype, Layout.NHWC, order)


def open_artifact(path: Path, threads: int = 1) -> InterpreterRuntime:
    """Return the package at ``path``, open and ready to run."""
    return CoreMLRuntime(path, threads) if sys.platform == "darwin" else InterpreterRuntime(path, threads)


def open_all(path: Path, threads: int = 1) -> tuple[InterpreterRuntime, ...]:
    """Return the package at ``path`` in everything here that executes it, what users get first.

    That is Core ML and the reference interpreter on macOS. Elsewhere it is the interpreter alone: Apple's library
    reads and writes packages on Linux and Windows but does not run them.
    """
    first = open_artifact(path, threads)
    return (first, InterpreterRuntime(path, threads)) if sys.platform == "darwin" else (first,)
