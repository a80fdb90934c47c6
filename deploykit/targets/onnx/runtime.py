"""Run an ONNX file with ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import onnx
import onnxruntime

from deploykit.errors import ArtifactError
from deploykit.records import TensorRecord
from deploykit.targets.base import Array, check_inputs
from deploykit.targets.onnx.processor import products_saturate
from deploykit.vocab import Layout

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


class OnnxRuntime:
    """An open ONNX file; ``threads`` bounds the threads inside one operation."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        for key, value in integer_options(path).items():
            options.add_session_config_entry(key, value)
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # ONNX Runtime raises bare C++ exceptions whose classes it does not export under stable names.
            raise ArtifactError(
                "ONNX Runtime cannot load the file.",
                where=str(path),
                found=str(error).strip()[:400],
                expected="a whole ONNX model",
                next_step="export or copy it again: it may have been cut short",
            ) from error
        self.inputs = tuple(_record(item, path) for item in self._session.get_inputs())
        self.outputs = tuple(_record(item, path) for item in self._session.get_outputs())

    @property
    def name(self) -> str:
        """The runtime with its version."""
        return f"ONNX Runtime {onnxruntime.__version__} (CPU)"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return name → array of every output."""
        check_inputs(self._path, self.inputs, inputs)
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:
            # ONNX Runtime raises bare C++ exceptions whose classes it does not export under stable names.
            raise ArtifactError(
                "ONNX Runtime cannot run the file.",
                where=str(self._path),
                found=str(error).strip()[:400],
                expected="a sound ONNX model",
                next_step="export again",
            ) from error
        return {record.name: np.asarray(value) for record, value in zip(self.outputs, values, strict=True)}

    def __enter__(self) -> Self:
        """Return the open runtime."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the session."""
        del self._session


def _record(item: onnxruntime.NodeArg, path: Path) -> TensorRecord:
    if item.type not in _DTYPES:
        raise ArtifactError(
            "The file has an input or output that deploykit does not take.",
            where=str(path),
            found=f"{item.name}: {item.type} {item.shape}",
            expected="one of " + ", ".join(_DTYPES),
        )
    shape = tuple(size if isinstance(size, int) else -1 for size in item.shape)
    return TensorRecord(item.name, shape, _DTYPES[item.type], Layout.NCHW)


def integer_options(path: Path) -> dict[str, str]:
    """Return the options of ONNX Runtime with which the integers of the file at ``path`` are computed well.

    Weights that are integers while nothing else is become floats once, when the file is loaded: else that happens in
    every run, and the convolutions are not blocked. Products of integers are not to saturate on this processor.
    """
    try:
        kinds = {node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node}
    except Exception:
        # protobuf has classes of its own; ONNX Runtime says below what is wrong with the file.
        return {}
    if "DequantizeLinear" not in kinds:
        return {}
    if "QuantizeLinear" not in kinds:
        return {"session.disable_quant_qdq": "1"}
    return {"session.x64quantprecision": "1"} if products_saturate() else {}


def open_artifact(path: Path, threads: int = 1) -> OnnxRuntime:
    """Return the file at ``path``, open and ready to run."""
    return OnnxRuntime(path, threads)
