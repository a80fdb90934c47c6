"""What is read from ONNX files that the test builds, against counts made by hand."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.errors import ArtifactError
from deploykit.graph.conventions import not_counted, total, unknown
from deploykit.targets.contents import FileTensor, WeightBytes
from deploykit.targets.onnx.inspection import read_contents
from deploykit.vocab import Convention

FLOAT = TensorProto.FLOAT
MACS = Convention.MACS


def weight(name, *shape, dtype=np.float32):
    return numpy_helper.from_array(np.ones(shape, dtype), name)


def declared(name, *shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def write(path, nodes, inputs, outputs, initializers=(), metadata=None, opsets=(("", 18),)):
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(*one) for one in opsets], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """An image (1, 4, 6, 8) through every kind of product that ONNX has, and some others."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "grouped"], ["a"], group=2, pads=[1, 1, 1, 1]),
        node("ConvTranspose", ["a", "transposed"], ["b"], strides=[2, 2]),
        node("Transpose", ["b"], ["c"], perm=[0, 1, 3, 2]),
        node("MatMul", ["b", "c"], ["d"]),
        node("Flatten", ["image"], ["e"]),
        node("Gemm", ["e", "full", "bias"], ["f"], transB=1),
        node("Einsum", ["image", "image"], ["g"], equation="nchw,ndhw->ncd"),
        node("QuantizeLinear", ["f", "scale", "zero"], ["h"]),
        node("DequantizeLinear", ["h", "scale", "zero"], ["i"]),
        node("LSTM", ["g", "w", "r"], ["", "hidden"], hidden_size=3),
        node("Blur", ["i"], ["j"], domain="com.example"),
        node("Relu", ["d"], ["out"]),
    ]
    initializers = [
        weight("grouped", 8, 2, 3, 3),
        weight("transposed", 8, 3, 2, 2),
        weight("full", 5, 192),
        weight("bias", 5, dtype=np.float16),
        weight("scale"),
        weight("zero", dtype=np.uint8),
        weight("w", 1, 12, 4),
        weight("r", 1, 12, 3),
    ]
    path = write(
        tmp_path_factory.mktemp("onnx") / "made.onnx",
        nodes,
        [declared("image", 1, 4, 6, 8)],
        [declared("out", 1, 3, 12, 12), declared("j", "n", None, kind=TensorProto.FLOAT16)],
        initializers,
        metadata={"input.image": "a photo", "license": "MIT"},
        opsets=(("", 18), ("com.example", 2)),
    )
    return read_contents(path)


def test_multiplications_are_those_counted_by_hand(contents):
    by_name = {operation.name: operation.kernel * operation.positions for operation in contents.work}
    assert {name: macs for name, macs in by_name.items() if macs} == {
        "Conv": 8 * 2 * 9 * 48,
        "ConvTranspose": 8 * 3 * 4 * 48,
        # (12, 16) times (16, 12) in 3 channels.
        "MatMul": 3 * 12 * 12 * 16,
        "Gemm": 5 * 192,
        "Einsum": 4 * 4 * 48,
    }
    assert total(contents.work, MACS) == sum(by_name.values())
    assert total(contents.work, Convention.CONV_MACS) == by_name["Conv"]


def test_what_is_not_counted_and_what_is_not_known(contents):
    assert not_counted(contents.work, MACS) == {"QuantizeLinear": 1, "DequantizeLinear": 1, "Relu": 1}
    assert unknown(contents.work) == {"LSTM": 1, "com.example.Blur": 1}


def test_operations_versions_and_contract(contents):
    assert contents.versions == {"opset": "18", "opset of com.example": "2", "IR": "9"}
    assert contents.minimum_os is None
    assert contents.transposes == 1
    assert contents.operations["Conv"] == 1
    assert sum(contents.operations.values()) == 12
    assert contents.quantized == {"QuantizeLinear": 1, "DequantizeLinear": 1}
    assert contents.inputs == (FileTensor("image", (1, 4, 6, 8), "float32", meaning="a photo"),)
    assert contents.outputs[1] == FileTensor("j", ("n", "?"), "float16")
    assert contents.metadata == {"license": "MIT"}
    assert contents.computed["uint8"] == 1


def test_weights_by_dtype(contents):
    floats = 8 * 2 * 9 + 8 * 3 * 4 + 5 * 192 + 1 + 48 + 36
    assert contents.weights == (
        WeightBytes("float32", 6, floats, 4 * floats),
        WeightBytes("float16", 1, 5, 10),
        WeightBytes("uint8", 1, 1, 1),
    )


def test_four_bit_weights_take_half_a_byte_each(tmp_path):
    packed = helper.make_tensor("w", TensorProto.INT4, [3, 3], [1] * 9)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    path = write(
        tmp_path / "x.onnx",
        nodes,
        [declared("x", 2, 3)],
        [declared("y", 2, 3)],
        [packed, weight("s")],
        opsets=(("", 21),),
    )
    assert read_contents(path).weights[0] == WeightBytes("int4", 1, 9, 5)


def test_sizes_that_are_not_fixed_make_the_work_unknown(tmp_path):
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = write(
        tmp_path / "x.onnx",
        nodes,
        [declared("x", 1, 4, "rows", 8)],
        [declared("y", 1, 2, "r", 8)],
        [weight("w", 2, 4, 1, 1)],
    )
    contents = read_contents(path)
    assert unknown(contents.work) == {"Conv": 1}
    assert contents.inputs[0].shape == (1, 4, "rows", 8)


def test_a_product_in_a_branch_runs_nobody_knows_how_often(tmp_path):
    def branch(name):
        inner = [helper.make_node("MatMul", ["x", "x"], [name])]
        return helper.make_graph(inner, name, [], [declared(name, 3, 3)])

    nodes = [helper.make_node("If", ["yes"], ["y"], then_branch=branch("a"), else_branch=branch("b"))]
    inputs = [declared("x", 3, 3), declared("yes", kind=TensorProto.BOOL)]
    contents = read_contents(write(tmp_path / "x.onnx", nodes, inputs, [declared("y", 3, 3)]))
    assert unknown(contents.work) == {"MatMul": 2, "If": 1}
    assert total(contents.work, MACS) == 0


def test_weights_in_a_second_file_are_named(tmp_path):
    path = write(
        tmp_path / "x.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [declared("x", 2, 64)],
        [declared("y", 2, 64)],
        [weight("w", 64, 64)],
    )
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="x.bin", size_threshold=0)
    (note,) = read_contents(path).notes
    assert "second file, x.bin;" in note
    (tmp_path / "x.bin").unlink()
    contents = read_contents(path)
    assert "which is missing" in contents.notes[0]
    assert contents.weights == (WeightBytes("float32", 1, 4096, 16384),)


@pytest.mark.parametrize("raw", [b"", b"hello, this is a text\n", b"\x00" * 64, b"TFL3" * 9, b"\x08\x09"])
def test_other_files_are_refused(tmp_path, raw):
    path = tmp_path / "x.onnx"
    path.write_bytes(raw)
    with pytest.raises(ArtifactError, match="no ONNX model, or it is damaged"):
        read_contents(path)


def test_damage_is_refused_or_read_but_never_a_crash(tmp_path, contents):
    raw = contents.path.read_bytes()
    rng = np.random.default_rng(3)
    path, refused = tmp_path / "x.onnx", 0
    for trial in range(60):
        damaged = bytearray(raw[: rng.integers(len(raw))] if trial % 2 else raw)
        for place in rng.integers(max(len(damaged), 1), size=4 if damaged else 0):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_contents(path)
        except ArtifactError:
            refused += 1
    assert refused > 30
