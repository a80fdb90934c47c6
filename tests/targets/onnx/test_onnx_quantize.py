"""Integers in ONNX files that the test builds: what ONNX Runtime fuses, what it cannot, and what must not saturate."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploykit.errors import TargetError
from deploykit.targets.onnx.inspection import read_contents
from deploykit.targets.onnx.processor import products_saturate
from deploykit.targets.onnx.quantize import activations, quantize
from deploykit.targets.onnx.runtime import integer_options, open_artifact
from deploykit.targets.onnx.traced import trace
from deploykit.targets.quantized import Range
from deploykit.targets.traced import Arithmetic
from deploykit.vocab import Precision

INT8, WEIGHTS = Precision.INT8, Precision.INT8_WEIGHTS
CHANNELS, SIZE = 16, 12
IMAGE = np.random.default_rng(1).uniform(-1, 1, (1, 3, SIZE, SIZE)).astype(np.float32)


def weights(*shape):
    return (np.random.default_rng(len(shape)).normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def write(path, change=None):
    """Write conv, relu, depthwise conv, pooling, transposed conv, a matrix product and a last conv to ``path``."""
    constants = {
        "w1": weights(CHANNELS, 3, 3, 3),
        "b1": weights(CHANNELS),
        "w2": weights(CHANNELS, 1, 3, 3),
        "w3": weights(CHANNELS, 4, 2, 2),
        "b3": weights(4),
        "m": weights(SIZE, SIZE),
        "w4": weights(2, 4, 1, 1),
        "b4": weights(2),
    }
    constants.update(change or {})
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=CHANNELS),
        helper.make_node("MaxPool", ["c2"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("ConvTranspose", ["p", "w3", "b3"], ["t"], strides=[2, 2]),
        helper.make_node("MatMul", ["t", "m"], ["mm"]),
        helper.make_node("Conv", ["mm", "w4", "b4"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, IMAGE.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 2, SIZE, SIZE))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture
def float_file(tmp_path):
    return write(tmp_path / "float.onnx")


def run(path):
    with open_artifact(path) as runtime:
        return runtime.run({"x": IMAGE})["y"]


def ranges(path):
    exposed = onnx.load(path)
    names = [name for node in exposed.graph.node for name in node.output]
    exposed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name != "y")
    session = onnxruntime.InferenceSession(exposed.SerializeToString(), providers=["CPUExecutionProvider"])
    found = {"x": IMAGE, **dict(zip(names, session.run(names, {"x": IMAGE}), strict=True))}
    return {k: Range(min(0.0, float(v.min())), max(0.0, float(v.max()))) for k, v in found.items()}


def executed(path, tmp_path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "executed.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "executed.onnx").graph.node)


def snr_db(path, float_file):
    expected = run(float_file).astype(np.float64)
    return 10 * np.log10((expected**2).sum() / ((run(path) - expected) ** 2).sum())


def test_onnx_runtime_executes_convolutions_and_matrix_products_in_integers(float_file, tmp_path):
    path = tmp_path / "int8.onnx"
    found = quantize(float_file, path, INT8, ranges=ranges(float_file))
    kinds = executed(path, tmp_path)
    assert kinds["QLinearConv"] == 2
    assert kinds["QLinearMatMul"] == 1
    assert kinds["Relu"] == 0
    assert {one.name: one.reason for one in found.left_in_float} == {
        "t": "ONNX Runtime has no integer kernel for ConvTranspose",
        "y": "it computes an output of the file, whose scores keep their resolution",
    }
    # x, relu, depthwise conv; what the matrix product reads and makes.
    assert (found.activations, found.weights) == (5, 5)
    assert snr_db(path, float_file) > 30


def test_what_is_kept_is_not_executed_in_integers(float_file, tmp_path):
    path = tmp_path / "int8.onnx"
    quantize(float_file, path, INT8, ranges=ranges(float_file), kept=["c2"])
    assert executed(path, tmp_path)["QLinearConv"] == 1
    # The activation behind a convolution is kept: the convolution itself is rounded.
    quantize(float_file, path, INT8, ranges=ranges(float_file), kept=["r1"])
    assert executed(path, tmp_path)["QLinearConv"] == 2
    assert snr_db(path, float_file) > 30


def test_activations_say_what_takes_weights_and_what_is_rounded(float_file):
    found = {one.name: one for one in activations(float_file, INT8)}
    assert list(found) == ["x", "c1", "r1", "c2", "p", "t", "mm", "y"]
    assert [name for name, one in found.items() if one.takes_weights] == ["c1", "c2", "t", "mm", "y"]
    assert [name for name, one in found.items() if one.quantizes] == ["c1", "r1", "c2", "mm"]
    assert found["c2"].reads == ("r1",)
    assert found["c2"].shape == (1, CHANNELS, SIZE, SIZE)
    assert not any(one.quantizes for one in activations(float_file, WEIGHTS))


def test_dead_channels_and_large_biases_keep_the_scores(tmp_path):
    w1, w4 = weights(CHANNELS, 3, 3, 3), weights(2, 4, 1, 1)
    w1[1], w1[2] = 0, 1e-40
    change = {"w1": w1, "b1": 10 * weights(CHANNELS), "w4": w4}
    float_file = write(tmp_path / "float.onnx", change)
    path = tmp_path / "int8.onnx"
    quantize(float_file, path, INT8, ranges=ranges(float_file))
    assert snr_db(path, float_file) > 30


def test_a_weight_that_is_not_finite_is_refused(tmp_path):
    w1 = weights(CHANNELS, 3, 3, 3)
    w1[0, 0, 0, 0] = np.inf
    float_file = write(tmp_path / "float.onnx", {"w1": w1})
    with pytest.raises(TargetError, match=r"float.onnx: w1[\s\S]*1 of 432"):
        quantize(float_file, tmp_path / "int8.onnx", WEIGHTS, ranges={})
    assert not (tmp_path / "int8.onnx").exists()


def test_large_products_do_not_saturate(tmp_path):
    # 255 · 127 twice is beyond 16 bits: a processor without VNNI cuts it off unless it is told not to.
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"]),
            helper.make_node("Relu", ["c"], ["r"]),
            helper.make_node("Neg", ["r"], ["y"]),
        ],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 64, 4, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 8, 4, 4))],
        [numpy_helper.from_array(np.ones((8, 64, 1, 1), np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), tmp_path / "f.onnx")
    path = tmp_path / "int8.onnx"
    quantize(tmp_path / "f.onnx", path, INT8, ranges={"x": Range(0, 1), "c": Range(0, 64), "r": Range(0, 64)})
    assert executed(path, tmp_path)["QLinearConv"] == 1
    with open_artifact(path) as runtime:
        np.testing.assert_allclose(runtime.run({"x": np.ones((1, 64, 4, 4), np.float32)})["y"], -64, rtol=1e-3)


def test_only_x86_without_vnni_saturates():
    assert products_saturate("x86_64", "flags : avx2 avx512f fma")
    assert products_saturate("AMD64", "")
    assert not products_saturate("x86_64", "flags : avx2 avx512_vnni")
    assert not products_saturate("x86_64", "flags : avx2 avx_vnni fma")
    assert not products_saturate("aarch64", "")


def test_a_session_is_told_what_its_integers_need(float_file, tmp_path, monkeypatch):
    whole, alone = tmp_path / "int8.onnx", tmp_path / "weights.onnx"
    quantize(float_file, whole, INT8, ranges=ranges(float_file))
    quantize(float_file, alone, WEIGHTS, ranges={})
    assert integer_options(float_file) == {}
    assert integer_options(alone) == {"session.disable_quant_qdq": "1"}
    before = run(whole)
    monkeypatch.setattr("deploykit.targets.onnx.runtime.products_saturate", lambda: True)
    assert integer_options(whole) == {"session.x64quantprecision": "1"}
    np.testing.assert_array_equal(run(whole), before)


def test_traced_and_read_as_what_the_integers_stand_for(float_file, tmp_path):
    path = tmp_path / "int8.onnx"
    found = quantize(float_file, path, INT8, ranges=ranges(float_file))
    for arithmetic in Arithmetic:
        values = {one.name: one.value for one in trace(path, {"x": IMAGE}, arithmetic).values}
        assert {value.dtype for value in values.values()} == {np.dtype(np.float32)}
        for name in ("x", "r1", "c2", "mm"):
            np.testing.assert_allclose(values[f"{name}_quantized"], values[f"{name}_dequantized"], rtol=1e-6)
    contents = read_contents(path)
    assert contents.quantized == {"DequantizeLinear": 5 + 1 + found.activations, "QuantizeLinear": found.activations}
    assert {one.dtype for one in contents.weights} == {"int8", "uint8", "int32", "float32"}
    assert contents.computed["uint8"] == found.activations
