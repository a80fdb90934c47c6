"""Every value inside an ONNX file: as ONNX Runtime computes it, and as the operators are specified."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from deploykit.errors import ArtifactError
from deploykit.targets.base import Array
from deploykit.targets.onnx.reference import evaluate
from deploykit.targets.traced import Arithmetic, Trace, TracedValue

EXPOSED = (
    "ONNX Runtime returns every value that it is asked for: operations that it would fuse run one by one here, its "
    "other graph optimisations are those of a plain run"
)


def trace(path: Path, inputs: Mapping[str, Array], arithmetic: Arithmetic) -> Trace:
    """Return every value of the file in the order of its nodes.

    The reference executor is ONNX's own where numpy alone does it in time; convolution, pooling, resizing and grid
    sampling are evaluated in float32 by PyTorch or by matrices of the specified coordinates.

    Raises ArtifactError where the file cannot be read or run.
    """
    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise classes of their own for a damaged file
        raise _refused(path, error) from error
    names = _computed(model)
    try:
        if arithmetic is Arithmetic.REFERENCE:
            found, executor, note = evaluate(model, dict(inputs)), f"onnx {onnx.__version__} reference evaluator", ""
        else:
            found, executor = _run(model, names, inputs), f"ONNX Runtime {onnxruntime.__version__} (CPU)"
            note = _against_plain(found, _run(model, [output.name for output in model.graph.output], inputs))
    except Exception as error:  # both raise whatever their operators raise
        raise _refused(path, error) from error
    outputs = {output.name for output in model.graph.output}
    producers = {name: (place, node) for place, node in enumerate(model.graph.node) for name in node.output if name}
    constants = {item.name: item for item in model.graph.initializer}
    values = []
    for name in names:
        place, node = producers[name]
        value = _dequantized(node, np.asarray(found[name]), constants)
        output = name if name in outputs else None
        values.append(TracedValue(name, node.op_type, place, tuple(node.input), value, output=output, origins=(name,)))
    return Trace(tuple(values), executor, note)


def _dequantized(node: onnx.NodeProto, value: Array, constants: Mapping[str, onnx.TensorProto]) -> Array:
    """Return the numbers, in float32, that the integers of a tensor with one stored scale stand for; else ``value``."""
    stored = [onnx.numpy_helper.to_array(constants[name]) for name in node.input[1:] if name in constants]
    if node.op_type != "QuantizeLinear" or not stored or stored[0].size != 1:
        return value
    zero = int(stored[1]) if len(stored) > 1 else 0
    real: Array = ((value.astype(np.int64) - zero) * np.float32(stored[0])).astype(np.float32)
    return real


def _computed(model: onnx.ModelProto) -> list[str]:
    """Return the names of the tensors that nodes compute from the inputs, in order."""
    varying = {item.name for item in model.graph.input}
    found = []
    for node in model.graph.node:
        if varying.isdisjoint(node.input):
            continue
        for name in filter(None, node.output):
            varying.add(name)
            found.append(name)
    return found


def _against_plain(found: Mapping[str, Array], plain: Mapping[str, Array]) -> str:
    if all(np.array_equal(found[name], value, equal_nan=value.dtype.kind == "f") for name, value in plain.items()):
        return f"{EXPOSED}; the outputs are those of a plain run, bit by bit"
    largest = max(
        float(np.abs(found[name].astype(np.float64) - value.astype(np.float64)).max()) for name, value in plain.items()
    )
    return f"{EXPOSED}; outputs differ from a plain run by up to {largest:.2g}"


def _run(model: onnx.ModelProto, names: list[str], inputs: Mapping[str, Array]) -> dict[str, Array]:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    returned = {output.name for output in model.graph.output}
    for name in names:
        if name not in returned:
            exposed.graph.output.append(onnx.ValueInfoProto(name=name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _refused(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        "The values inside the ONNX file cannot be computed.",
        where=str(path),
        found=f"{type(error).__name__}: {str(error).strip()[:400]}",
        expected="a sound ONNX model with fixed shapes",
    )
