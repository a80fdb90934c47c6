"""Read what an ONNX file holds: its graph as it is on disk, with shapes inferred, nothing run."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import Kind, Operation, einsum_inner
from deploykit.targets.contents import FileContents, FileTensor, WeightBytes, packed_bytes, sum_by_dtype
from deploykit.vocab import Target

# Operation → position of its weight among its inputs.
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_TRANSPOSED = {"ConvTranspose": 1}
_PRODUCTS = {"MatMul", "MatMulInteger", "QLinearMatMul", "Gemm", "Einsum"}
_MOVES = {
    *("Reshape", "Transpose", "Concat", "Slice", "Split", "Squeeze", "Unsqueeze", "Identity", "Flatten", "Expand"),
    *("Gather", "GatherND", "GatherElements", "ScatterND", "ScatterElements", "Pad", "Cast", "Shape", "Size", "Tile"),
    *("Constant", "ConstantOfShape", "Range", "DepthToSpace", "SpaceToDepth", "Where", "EyeLike", "Dropout"),
}
# They multiply, and how often does not follow from the shapes of their inputs and outputs alone.
_UNKNOWN = {"LSTM", "GRU", "RNN", "Attention", "RotaryEmbedding", "DeformConv", "Loop", "If", "Scan", "SequenceMap"}
_OWN_DOMAINS = ("", "ai.onnx")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger", "QLinear")
_DTYPES = {"FLOAT": "float32", "DOUBLE": "float64"}


def read_contents(path: Path) -> FileContents:
    """Return what the ONNX file at ``path`` holds. Raises ArtifactError where it is none or damaged."""
    try:
        return _contents(path, _load(path))
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise _refused(path, f"{type(error).__name__}: {error}") from error


def _contents(path: Path, model: ModelProto) -> FileContents:
    inferred, notes = _inferred(model)
    values = _Values.of(inferred.graph)
    work = tuple(_operations(inferred.graph, values))
    operations = Counter(operation.name for operation in work)
    constants = {item.name for item in model.graph.initializer}
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    return FileContents(
        target=Target.ONNX,
        path=path,
        size_bytes=path.stat().st_size,
        versions=_versions(model),
        minimum_os=None,
        inputs=tuple(
            _tensor(item, metadata.get(f"input.{item.name}", ""))
            for item in model.graph.input
            if item.name not in constants
        ),
        outputs=tuple(_tensor(item, metadata.get(f"output.{item.name}", "")) for item in model.graph.output),
        operations=dict(operations.most_common()),
        transposes=operations["Transpose"],
        quantized={name: count for name, count in operations.most_common() if name.startswith(_QUANTIZED)},
        weights=_weights(model),
        computed=dict(
            Counter(values.dtypes[name] for name in _made(model.graph) if name in values.dtypes).most_common()
        ),
        work=work,
        metadata={key: value for key, value in sorted(metadata.items()) if not key.startswith(("input.", "output."))},
        notes=(*notes, *_external(model, path)),
    )


def _load(path: Path) -> ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        # protobuf has its own classes of errors, and is installed only with onnx.
        raise _refused(path, f"{type(error).__name__}: {error}") from error
    if not model.ir_version or not model.graph.output:
        raise _refused(path, "no graph with outputs" if path.stat().st_size else "an empty file")
    return model


def _refused(path: Path, found: str) -> ArtifactError:
    return ArtifactError(
        "The file is no ONNX model, or it is damaged.",
        where=str(path),
        found=found[:300],
        expected="an ONNX model with a graph",
        next_step="export or download it again",
    )


def _inferred(model: ModelProto) -> tuple[ModelProto, tuple[str, ...]]:
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True), ()
    except Exception as error:
        # The C++ part raises several classes, of which only some are exported.
        return model, (f"shapes could not be inferred: {str(error).strip()[:200]}",)


def _versions(model: ModelProto) -> dict[str, str]:
    opsets = {
        "opset" if item.domain in _OWN_DOMAINS else f"opset of {item.domain}": str(item.version)
        for item in model.opset_import
    }
    producer = f"{model.producer_name} {model.producer_version}".strip()
    return {**opsets, "IR": str(model.ir_version), **({"producer": producer} if producer else {})}


@dataclass(frozen=True)
class _Values:
    """What is known of the values of a graph by name."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: Mapping[str, str]

    @classmethod
    def of(cls, graph: GraphProto) -> _Values:
        shapes: dict[str, tuple[int, ...]] = {}
        dtypes: dict[str, str] = {}
        for item in (*graph.input, *graph.value_info, *graph.output):
            shape = _shape(item)
            dtypes[item.name] = _dtype(item.type.tensor_type.elem_type)
            if item.type.tensor_type.HasField("shape") and all(isinstance(size, int) for size in shape):
                shapes[item.name] = tuple(size for size in shape if isinstance(size, int))
        for constant in graph.initializer:
            shapes[constant.name] = tuple(constant.dims)
        return cls(shapes, dtypes)


def _operations(graph: GraphProto, values: _Values, nested: bool = False) -> Iterator[Operation]:
    for node in graph.node:
        operation = _operation(node, values)
        kernels = (Kind.CONVOLUTION, Kind.TRANSPOSED_CONVOLUTION, Kind.MATRIX_PRODUCT)
        # How often the body of a loop or a branch runs is not in the file.
        yield replace(operation, kind=Kind.UNKNOWN) if nested and operation.kind in kernels else operation
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.type in _GRAPHS else ():
                yield from _operations(inner, _Values.of(inner), nested=True)


_GRAPHS = (AttributeProto.GRAPH, AttributeProto.GRAPHS)


def _operation(node: NodeProto, values: _Values) -> Operation:
    standard = node.domain in _OWN_DOMAINS
    name = node.op_type if standard else f"{node.domain}.{node.op_type}"
    shapes = [values.shapes.get(item) for item in node.input]
    made = values.shapes.get(node.output[0]) if node.output else None
    first = shapes[0] if shapes else None
    inputs, outputs = (0 if shape is None else math.prod(shape) for shape in (first, made))
    plain = Operation(name, Kind.OTHER, node.name, inputs, outputs)
    if node.op_type in _MOVES:
        return replace(plain, kind=Kind.MOVE)
    weight_at = _CONVOLUTIONS.get(node.op_type, _TRANSPOSED.get(node.op_type))
    if weight_at is not None:
        weight = shapes[weight_at] if weight_at < len(shapes) else None
        if not weight or not math.prod(weight) * inputs * outputs:
            return replace(plain, kind=Kind.UNKNOWN)
        transposed = node.op_type in _TRANSPOSED
        return replace(
            plain,
            kind=Kind.TRANSPOSED_CONVOLUTION if transposed else Kind.CONVOLUTION,
            kernel=math.prod(weight),
            positions=(inputs if transposed else outputs) // weight[0],
        )
    if node.op_type in _PRODUCTS:
        inner = _inner(node, shapes)
        if inner is None or not outputs:
            return replace(plain, kind=Kind.UNKNOWN)
        return replace(plain, kind=Kind.MATRIX_PRODUCT, kernel=inner, positions=outputs)
    return plain if standard and node.op_type not in _UNKNOWN else replace(plain, kind=Kind.UNKNOWN)


def _inner(node: NodeProto, shapes: list[tuple[int, ...] | None]) -> int | None:
    attributes = {item.name: item for item in node.attribute}
    if node.op_type == "Einsum":
        return einsum_inner(attributes["equation"].s.decode(), shapes) if "equation" in attributes else None
    left = shapes[0] if shapes else None
    if not left:
        return None
    return left[0] if "transA" in attributes and attributes["transA"].i else left[-1]


def _made(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield from node.output


def _weights(model: ModelProto) -> tuple[WeightBytes, ...]:
    def measured(tensor: TensorProto) -> tuple[str, int, int]:
        dtype, values = _dtype(tensor.data_type), math.prod(tensor.dims)
        return dtype, values, packed_bytes(dtype, values)

    return sum_by_dtype(measured(tensor) for tensor in _constants(model.graph))


def _constants(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs) if attribute.type in _GRAPHS else ():
                yield from _constants(inner)


def _external(model: ModelProto, path: Path) -> Iterator[str]:
    places = {
        entry.value for tensor in _constants(model.graph) for entry in tensor.external_data if entry.key == "location"
    }
    for place in sorted(places):
        missing = "" if (path.parent / place).is_file() else ", which is missing"
        yield f"weights are in a second file, {place}{missing}; its bytes are not in the file size"


def _tensor(item: ValueInfoProto, meaning: str) -> FileTensor:
    return FileTensor(item.name, _shape(item), _dtype(item.type.tensor_type.elem_type), meaning=meaning)


def _shape(item: ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(
        size.dim_value if size.HasField("dim_value") else size.dim_param or "?"
        for size in item.type.tensor_type.shape.dim
    )


def _dtype(number: int) -> str:
    try:
        name: str = TensorProto.DataType.Name(number)
    except ValueError:
        return f"dtype {number}"
    return "no tensor" if name == "UNDEFINED" else _DTYPES.get(name, name.lower())
