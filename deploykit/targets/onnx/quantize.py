"""An ONNX file with integers: QuantizeLinear and DequantizeLinear around what ONNX Runtime computes in integers.

Convolutions and linear layers are integers; the arithmetic between them stays in float32, where it costs little:
a multiplication by a constant a channel loses more in 8 bits a tensor than whole convolutions do. Activations are
uint8, weights int8. On x86 without VNNI such products saturate in ONNX Runtime (a sum of two of them is kept in 16
bits) unless its session option ``session.x64quantprecision`` is 1: ``runtime.py`` sets it there, and who runs the
file without deploykit has to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from deploykit.targets.base import Array, check_inputs
from deploykit.targets.integers import require_known, require_ranges
from deploykit.targets.onnx.qdq import QdqWriter
from deploykit.targets.onnx.runtime import open_artifact
from deploykit.targets.onnx.weighted import Weighted, weighted
from deploykit.targets.quantized import KEPT, KEPT_WEIGHTS, Activation, LeftInFloat, QuantizedFile, Range, unreadable
from deploykit.targets.schemes import require_integers
from deploykit.vocab import Precision, Target


def activations(path: Path, precision: Precision) -> tuple[Activation, ...]:
    """Return the float32 inputs of the file, then what its nodes compute, in the order of the nodes.

    Raises TargetError where ``precision`` is none that an ONNX file is quantized to.
    """
    require_integers(Target.ONNX, precision, path)
    model = _load(path)
    layers = tuple(weighted(model.graph))
    takes = {layer.value for layer in layers}
    integers = {name for layer in layers if not layer.reason for name in (layer.value, layer.rounded)}
    shapes = _shapes(model)
    varying = [item.name for item in model.graph.input if item.name in shapes]
    found = [Activation(name, "", (), shapes[name], False, (), False, False) for name in varying]
    known = set(varying)
    for node in model.graph.node:
        if known.isdisjoint(node.input):
            continue
        reads = tuple(name for name in node.input if name in known)
        for name in filter(None, node.output):
            known.add(name)
            if name in shapes:
                quantizes = precision.quantizes_activations and name in integers
                found.append(
                    Activation(name, node.op_type, reads, shapes[name], False, (name,), name in takes, quantizes)
                )
    return tuple(found)


def observe(path: Path, inputs: Iterable[Mapping[str, Array]], names: Collection[str]) -> Iterator[dict[str, Array]]:
    """Yield, for each set of inputs, name → array of the activations ``names``, as ONNX Runtime computes them."""
    with open_artifact(path) as runtime:
        declared = runtime.inputs
    given = {record.name for record in declared}
    model = _load(path)
    computed = {name for node in model.graph.node for name in node.output}
    require_known(path, "names", names, computed | given)
    wanted = [name for name in dict.fromkeys(names) if name not in given]
    returned = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in returned)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for values in inputs:
        check_inputs(path, declared, values)
        found = session.run(wanted, dict(values)) if wanted else []
        kept = {name: np.asarray(values[name]) for name in names if name in given}
        yield {**kept, **dict(zip(wanted, map(np.asarray, found), strict=True))}


def quantize(
    path: Path,
    output: Path,
    precision: Precision,
    *,
    ranges: Mapping[str, Range],
    kept: Collection[str] = (),
    kept_weights: Collection[str] = (),
) -> QuantizedFile:
    """Write the float file ``path`` as ``output`` with integers, as ``Quantizer.quantize`` says.

    Raises TargetError where ``precision`` is none of ONNX, a range is missing or not finite, a weight is not finite,
    or a name is not in the file.
    """
    require_integers(Target.ONNX, precision, path)
    model = _load(path)
    layers = tuple(weighted(model.graph))
    known = {name for node in model.graph.node for name in node.output}
    require_known(path, "kept", kept, known)
    require_known(path, "kept_weights", kept_weights, known)
    reasons = {layer.value: _reason(layer, precision, kept, kept_weights) for layer in layers}
    integer = [layer for layer in layers if precision.quantizes_activations and not reasons[layer.value]]
    ends = {layer.value: layer.value if layer.rounded in kept else layer.rounded for layer in integer}
    require_ranges(path, (name for layer in integer for name in (layer.read, ends[layer.value])), ranges)
    writer = QdqWriter(path, model)
    for layer in layers:
        if layer.value in ends:
            writer.integers(layer, ranges[layer.read], ranges[ends[layer.value]], ends[layer.value])
        elif layer.value not in kept_weights:
            writer.weights_alone(layer)
    before = stored_bytes(model)
    quantized = writer.model()
    onnx.checker.check_model(quantized, full_check=True)
    output.write_bytes(quantized.SerializeToString(deterministic=True))
    return QuantizedFile(
        activations=writer.activations,
        weights=writer.weights,
        weight_bytes=stored_bytes(quantized),
        float_weight_bytes=before,
        left_in_float=tuple(LeftInFloat(name, reason) for name, reason in reasons.items() if reason)
        if precision.quantizes_activations
        else (),
    )


def stored_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes of all constants of ``model``, scales and zero points included."""
    constants = [*model.graph.initializer]
    for node in model.graph.node:
        constants.extend(item.t for item in node.attribute if node.op_type == "Constant" and item.HasField("t"))
    return sum(onnx.numpy_helper.to_array(item).nbytes for item in constants)


def _reason(layer: Weighted, precision: Precision, kept: Collection[str], kept_weights: Collection[str]) -> str:
    if layer.value in kept_weights:
        return KEPT_WEIGHTS
    if layer.value in kept:
        return KEPT
    return layer.reason


def _load(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise classes of their own for a damaged file
        raise unreadable(path, error) from error


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return name → shape of the float32 values whose shape is fixed."""
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    return {
        item.name: tuple(size.dim_value for size in item.type.tensor_type.shape.dim)
        for item in (*graph.input, *graph.value_info, *graph.output)
        if item.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
