"""A real TFLite file of one addition, whose signature lists its two inputs in another order than the model."""

from __future__ import annotations

from pathlib import Path

import flatbuffers
from ai_edge_litert import schema_py_generated as schema


def write_tflite(path: Path) -> Path:
    """Write a model of inputs z (1, 4) and a (1, 1), in this order, and one output, their sum."""
    model = schema.ModelT()
    model.version = 3
    model.description = b"one addition"
    model.buffers = [schema.BufferT()]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    model.operatorCodes = [code]
    graph = schema.SubGraphT()
    graph.name = b"main"
    graph.tensors = [_tensor(b"z", [1, 4]), _tensor(b"a", [1, 1]), _tensor(b"sum", [1, 4])]
    graph.inputs, graph.outputs = [0, 1], [2]
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType = schema.BuiltinOptions.AddOptions
    operator.builtinOptions = schema.AddOptionsT()
    graph.operators = [operator]
    model.subgraphs = [graph]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_place(b"a", 1), _place(b"z", 0)]
    signature.outputs = [_place(b"sum", 2)]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def _tensor(name: bytes, shape: list[int]) -> schema.TensorT:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, schema.TensorType.FLOAT32, 0
    return tensor


def _place(name: bytes, index: int) -> schema.TensorMapT:
    place = schema.TensorMapT()
    place.name, place.tensorIndex = name, index
    return place
