"""Run a TFLite file with LiteRT on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from deploykit.errors import ArtifactError
from deploykit.records import TensorRecord
from deploykit.targets.base import Array, check_inputs
from deploykit.targets.tflite.metadata import read_metadata
from deploykit.vocab import Layout


class LiteRTRuntime:
    """An open TFLite file, run through its first signature, or through its tensors where it has none."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self._path = path
        try:
            self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ArtifactError(
                "LiteRT cannot load the file.",
                where=str(path),
                found=str(error).strip()[:400],
                expected="a whole TFLite model",
                next_step="export or copy it again: it may have been cut short",
            ) from error
        self._runner: Any = None
        signatures = list(self._interpreter.get_signature_list())
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._places = {item["name"]: item["index"] for item in (*inputs, *outputs)}
        layout = read_metadata(path).get("layout")
        if signatures:
            self._runner = self._interpreter.get_signature_runner(signatures[0])
            taken, returned = self._runner.get_input_details(), self._runner.get_output_details()
            self.inputs = tuple(_record(name, detail, layout) for name, detail in taken.items())
            self.outputs = tuple(_record(name, detail, layout) for name, detail in returned.items())
        else:
            self.inputs = tuple(_record(item["name"], item, layout) for item in inputs)
            self.outputs = tuple(_record(item["name"], item, layout) for item in outputs)

    @property
    def name(self) -> str:
        """The runtime with its version."""
        import importlib.metadata

        return f"LiteRT {importlib.metadata.version('ai-edge-litert')} (CPU)"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return name → array of every output."""
        check_inputs(self._path, self.inputs, inputs)
        if self._runner is not None:
            return {name: np.asarray(value) for name, value in self._runner(**inputs).items()}
        for record in self.inputs:
            if -1 in record.shape:
                self._interpreter.resize_tensor_input(self._places[record.name], inputs[record.name].shape)
        self._interpreter.allocate_tensors()
        for name, value in inputs.items():
            self._interpreter.set_tensor(self._places[name], value)
        self._interpreter.invoke()
        return {record.name: self._interpreter.get_tensor(self._places[record.name]) for record in self.outputs}

    def __enter__(self) -> Self:
        """Return the open interpreter."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the interpreter."""
        self._runner = None
        del self._interpreter


def _record(name: str, detail: Mapping[str, Any], stated: str | None) -> TensorRecord:
    # Where an axis may have any size, the signature says so and the shape is that of the moment.
    stated_shape = detail["shape_signature"] if len(detail["shape_signature"]) else detail["shape"]
    shape = tuple(int(size) for size in stated_shape)
    # A file that does not say its layout has few channels and many columns, or the other way round.
    last = len(shape) == 4 and shape[-1] <= 4 < shape[1] if stated is None else stated == Layout.NHWC
    layout, dtype = Layout.NHWC if last else Layout.NCHW, np.dtype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    if dtype.kind != "i" or not scale:
        return TensorRecord(name, shape, dtype.name, layout)
    return TensorRecord(name, shape, dtype.name, layout, scale=float(scale), zero_point=int(zero_point))


def open_artifact(path: Path, threads: int = 1) -> LiteRTRuntime:
    """Return the file at ``path``, open and ready to run."""
    return LiteRTRuntime(path, threads)
