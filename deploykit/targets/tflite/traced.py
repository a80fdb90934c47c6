"""Every value inside a TFLite file: as LiteRT computes it, and as its reference kernels do."""

from __future__ import annotations

import importlib.metadata
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from deploykit.errors import ArtifactError
from deploykit.targets.base import Array
from deploykit.targets.tflite.runtime import open_artifact
from deploykit.targets.tflite.wiring import Wiring, read_wiring
from deploykit.targets.traced import Arithmetic, NotTracedError, Trace, TracedValue

ONE_BY_ONE = "LiteRT hands the operations to its delegate one by one here, so that each value is kept"
SAME = f"{ONE_BY_ONE}; the outputs are those of a plain run, bit by bit"


def trace(path: Path, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> Trace:
    """Return every value of the file's first signature, in the order of its operations.

    ``runtime`` is the interpreter with its default delegate, told to preserve all tensors, beside a plain run whose
    outputs are compared bit by bit. ``reference`` is LiteRT's own reference kernels, without a delegate. A tensor is
    named after what it came from in files of litert-torch: these names are the origins.

    Raises:
        ArtifactError: the file cannot be read or run, or ``inputs`` do not fit it.
        NotTracedError: an operation of the file has no reference kernel.
    """
    with open_artifact(path) as runtime:
        plain = runtime.run(inputs)
    try:
        wiring = read_wiring(path)
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise _refused(path, error) from error
    if arithmetic is Arithmetic.RUNTIME:
        try:
            found = _run(path, wiring, inputs, OpResolverType.AUTO)
        except (ValueError, RuntimeError) as error:
            raise _refused(path, error) from error
        values, note = _described(wiring, found), _against_plain(wiring, found, plain)
        return Trace(values, f"LiteRT {_version()} (CPU)", note)
    try:
        found = _run(path, wiring, inputs, OpResolverType.BUILTIN_REF)
    except (ValueError, RuntimeError) as error:
        raise NotTracedError(
            f"LiteRT's reference kernels do not run this file: {str(error).strip()[:200]}", where=str(path)
        ) from error
    return Trace(_described(wiring, found), f"LiteRT {_version()} reference kernels")


def _run(path: Path, wiring: Wiring, inputs: Mapping[str, Array], kernels: OpResolverType) -> dict[int, Array]:
    """Return index → value of every tensor that is computed from the inputs."""
    with warnings.catch_warnings():
        # It warns that preserving all tensors takes memory.
        warnings.simplefilter("ignore", UserWarning)
        interpreter = Interpreter(
            model_path=str(path),
            num_threads=1,
            experimental_op_resolver_type=kernels,
            experimental_preserve_all_tensors=True,
        )
    if wiring.signature is not None:
        interpreter.get_signature_runner(wiring.signature)(**inputs)
    else:
        for name, value in inputs.items():
            interpreter.resize_tensor_input(wiring.inputs[name], value.shape)
        interpreter.allocate_tensors()
        for name, value in inputs.items():
            interpreter.set_tensor(wiring.inputs[name], value)
        interpreter.invoke()
    computed = wiring.computed()
    details = {item["index"]: item for item in interpreter.get_tensor_details(wiring.subgraph)}
    return {
        index: _dequantized(interpreter.get_tensor(index, wiring.subgraph), details[index])
        for operator in wiring.operators
        for index in operator.makes
        if index in computed and index in details
    }


def _dequantized(value: Array, detail: Mapping[str, Any]) -> Array:
    """Return the numbers that a quantized tensor stands for, in float32; any other tensor as it is."""
    stated = detail["quantization_parameters"]
    scales, zeros = stated["scales"], stated["zero_points"]
    if not len(scales):
        return np.array(value)
    sizes = [1] * value.ndim
    if len(scales) > 1:
        sizes[stated["quantized_dimension"]] = len(scales)
    shifted = value.astype(np.int64) - zeros.reshape(sizes if len(zeros) > 1 else [1] * value.ndim)
    real: Array = (shifted * scales.reshape(sizes)).astype(np.float32)
    return real


def _described(wiring: Wiring, found: Mapping[int, Array]) -> tuple[TracedValue, ...]:
    last, names = wiring.channels_last(), wiring.names
    outputs = {index: name for name, index in reversed(tuple(wiring.outputs.items()))}
    given = {index: name for name, index in wiring.inputs.items()}
    read_from = wiring.computed() | frozenset(given)
    return tuple(
        TracedValue(
            name=names[index],
            operation=operator.kind,
            position=position,
            reads=tuple(given.get(read, names[read]) for read in operator.reads if read in read_from),
            value=found[index],
            channels_last=index in last,
            output=outputs.get(index),
            origins=origins(names[index]),
        )
        for position, operator in enumerate(wiring.operators)
        for index in operator.makes
        if index in found
    )


def origins(name: str) -> tuple[str, ...]:
    """Return what a name of litert-torch is joined from: ``relu;;conv2d;1`` is a relu after a conv2d."""
    return tuple(dict.fromkeys(part for part in name.split(";") if part and not part.isdigit()))


def _against_plain(wiring: Wiring, found: Mapping[int, Array], plain: Mapping[str, Array]) -> str:
    pairs = [(found[index], plain[name]) for name, index in wiring.outputs.items() if index in found]
    # Outputs that are quantized come as numbers here.
    pairs = [(kept, alone) for kept, alone in pairs if kept.dtype == alone.dtype]
    floats = [kept.dtype.kind == "f" for kept, _ in pairs]
    if all(np.array_equal(*pair, equal_nan=floating) for pair, floating in zip(pairs, floats, strict=True)):
        return SAME
    largest = max(float(np.abs(kept.astype(np.float64) - alone.astype(np.float64)).max()) for kept, alone in pairs)
    return f"{ONE_BY_ONE}; outputs differ from a plain run by up to {largest:.2g}"


def _refused(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        "The values inside the TFLite file cannot be computed.",
        where=str(path),
        found=f"{type(error).__name__}: {str(error).strip()[:400]}",
        expected="a sound TFLite model with fixed shapes",
    )


def _version() -> str:
    return importlib.metadata.version("ai-edge-litert")
