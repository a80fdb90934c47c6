"""What is read from TFLite files that the test builds, against counts made by hand."""

from __future__ import annotations

import json

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import not_counted, total, unknown
from deploykit.targets.contents import FileTensor, WeightBytes
from deploykit.targets.tflite.inspection import read_contents
from deploykit.vocab import Convention

Builtin, Type = schema.BuiltinOperator, schema.TensorType
MACS = Convention.MACS


class Flat:
    """A model of one graph in the making: tensors and operations by name."""

    def __init__(self):
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs = 3, [self.graph]
        self.model.buffers, self.model.operatorCodes = [schema.BufferT()], []
        self.graph.tensors, self.graph.operators = [], []
        self.places = {}

    def tensor(self, name, shape, dtype=Type.FLOAT32, values=None, scale=None, signature=None):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.shapeSignature = name.encode(), list(shape), dtype, signature
        if values is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(values.tobytes(), np.uint8)
            tensor.buffer = len(self.model.buffers)
            self.model.buffers.append(buffer)
        if scale is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [scale]
        self.places[name] = len(self.graph.tensors)
        self.graph.tensors.append(tensor)

    def operation(self, code, inputs, outputs, options=None, custom=None, old_field_only=False):
        kind = schema.OperatorCodeT()
        kind.builtinCode, kind.customCode = 0 if old_field_only else code, custom
        kind.deprecatedBuiltinCode = code if old_field_only else 0
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes)
        operator.inputs = [self.places.get(name, -1) for name in inputs]
        operator.outputs = [self.places[name] for name in outputs]
        if options is not None:
            operator.builtinOptionsType, operator.builtinOptions = options
        self.model.operatorCodes.append(kind)
        self.graph.operators.append(operator)

    def write(self, path, inputs, outputs, metadata=None):
        self.graph.inputs = [self.places[name] for name in inputs]
        self.graph.outputs = [self.places[name] for name in outputs]
        if metadata:
            buffer, entry = schema.BufferT(), schema.MetadataT()
            buffer.data = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
            entry.name, entry.buffer = b"deploykit", len(self.model.buffers)
            self.model.buffers.append(buffer)
            self.model.metadata = [entry]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), file_identifier=b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path


def ones(*shape, dtype=np.float32):
    return np.ones(shape, dtype)


def transposed_product():
    options = schema.BatchMatMulOptionsT()
    options.adjX = True
    return schema.BuiltinOptions.BatchMatMulOptions, options


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """An image (1, 6, 8, 4), channels last, through every kind of product that the format has, and some others."""
    flat = Flat()
    for name, shape in {
        **{"image": (1, 6, 8, 4), "a": (1, 6, 8, 8), "b": (1, 6, 8, 8), "c": (1, 12, 16, 3), "d": (6, 5)},
        **{"e": (1, 6, 4, 8), "f": (1, 8, 8, 6), "g": (1, 6, 8, 4), "h": (1, 6, 8, 4), "out": (1, 6, 8, 4)},
    }.items():
        flat.tensor(name, shape)
    flat.tensor("grouped", (8, 3, 3, 2), Type.INT8, ones(8, 3, 3, 2, dtype=np.int8), scale=0.5)
    flat.tensor("depthwise", (1, 3, 3, 8), values=ones(1, 3, 3, 8))
    flat.tensor("transposed", (3, 2, 2, 8), values=ones(3, 2, 2, 8))
    flat.tensor("full", (5, 32), Type.FLOAT16, ones(5, 32, dtype=np.float16))
    flat.tensor("size", (4,), Type.INT32, np.array([1, 12, 16, 3], np.int32))
    flat.operation(Builtin.CONV_2D, ["image", "grouped", ""], ["a"], old_field_only=True)
    flat.operation(Builtin.DEPTHWISE_CONV_2D, ["a", "depthwise", ""], ["b"], old_field_only=True)
    flat.operation(Builtin.TRANSPOSE_CONV, ["size", "transposed", "b"], ["c"])
    flat.operation(Builtin.FULLY_CONNECTED, ["image", "full"], ["d"])
    flat.operation(Builtin.BATCH_MATMUL, ["image", "b"], ["e"], transposed_product())
    flat.operation(Builtin.TRANSPOSE, ["image"], ["f"])
    flat.operation(Builtin.DEQUANTIZE, ["image"], ["g"])
    flat.operation(Builtin.CUSTOM, ["g"], ["h"], custom=b"Blur")
    flat.operation(Builtin.HARD_SWISH, ["h"], ["out"])
    path = tmp_path_factory.mktemp("tflite") / "made.tflite"
    about = {"input.image": "a photo", "layout": "nhwc"}
    return read_contents(flat.write(path, ["image"], ["out"], about))


def test_multiplications_are_those_counted_by_hand(contents):
    by_name = {operation.name: operation.kernel * operation.positions for operation in contents.work}
    assert {name: macs for name, macs in by_name.items() if macs} == {
        "CONV_2D": 8 * 9 * 2 * 48,
        "DEPTHWISE_CONV_2D": 8 * 9 * 48,
        "TRANSPOSE_CONV": 3 * 4 * 8 * 48,
        "FULLY_CONNECTED": 5 * 32 * 6,
        # (8, 4), read transposed, times (8, 8), six times.
        "BATCH_MATMUL": 6 * 4 * 8 * 8,
    }
    assert total(contents.work, MACS) == sum(by_name.values())
    assert total(contents.work, Convention.CONV_MACS) == by_name["CONV_2D"] + by_name["DEPTHWISE_CONV_2D"]


def test_what_is_not_counted_and_what_is_not_known(contents):
    assert not_counted(contents.work, MACS) == {"DEQUANTIZE": 1, "HARD_SWISH": 1}
    assert unknown(contents.work) == {"CUSTOM Blur": 1}


def test_operations_contract_and_numbers(contents):
    assert contents.versions == {"schema": "3"}
    assert contents.transposes == 1
    assert sum(contents.operations.values()) == 9
    assert contents.quantized == {"DEQUANTIZE": 1, "int8 tensors with scales": 1}
    assert contents.inputs == (FileTensor("image", (1, 6, 8, 4), "float32", meaning="a photo"),)
    assert contents.metadata == {"layout": "nhwc"}
    assert contents.computed == {"float32": 9}
    assert contents.weights == (
        WeightBytes("float32", 2, 72 + 96, 4 * (72 + 96)),
        WeightBytes("float16", 1, 160, 320),
        WeightBytes("int8", 1, 144, 144),
        WeightBytes("int32", 1, 4, 16),
    )


def test_sizes_that_are_not_fixed_make_the_work_unknown(tmp_path):
    flat = Flat()
    flat.tensor("image", (1, 1, 8, 4), signature=[1, -1, 8, 4])
    flat.tensor("w", (2, 1, 1, 4), values=ones(2, 1, 1, 4))
    flat.tensor("out", (1, 1, 8, 2), signature=[1, -1, 8, 2])
    flat.operation(Builtin.CONV_2D, ["image", "w", ""], ["out"])
    contents = read_contents(flat.write(tmp_path / "x.tflite", ["image"], ["out"]))
    assert unknown(contents.work) == {"CONV_2D": 1}
    assert contents.inputs[0].shape == (1, "?", 8, 4)


@pytest.mark.parametrize(
    "raw", [b"", b"hello, this is a text\n", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3", b"\xff" * 4 + b"TFL3" * 9]
)
def test_other_files_are_refused(tmp_path, raw):
    path = tmp_path / "x.tflite"
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match="no TFLite model, or it is damaged"):
        read_contents(path)


def test_damage_is_refused_or_read_but_never_a_crash(tmp_path, contents):
    raw = contents.path.read_bytes()
    rng = np.random.default_rng(3)
    path, refused = tmp_path / "x.tflite", 0
    for trial in range(80):
        damaged = bytearray(raw[: rng.integers(len(raw))] if trial % 2 else raw)
        for place in rng.integers(max(len(damaged), 1), size=4 if damaged else 0):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_contents(path)
        except ArtifactError:
            refused += 1
    assert refused > 30
