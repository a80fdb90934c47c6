"""Files with integers, written from real float files and run: what they are off by, what stays in float, refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from small_case import write_case

from deploykit import api
from deploykit.errors import TargetError
from deploykit.lowering import ExportOptions
from deploykit.pipeline import prepare_export
from deploykit.targets.base import Array
from deploykit.targets.quantized import KEPT, Activation, QuantizedFile, Range
from deploykit.targets.table import part
from deploykit.targets.traced import Arithmetic
from deploykit.verify.samples import draw_samples, feed
from deploykit.vocab import Precision, Target

TARGETS = pytest.mark.parametrize("target", [Target.ONNX, Target.TFLITE])
OUTPUT = "scores"


@dataclass(frozen=True)
class Case:
    """One float file, min-max ranges of its activations on five portraits, and what it gives for the last of them."""

    target: Target
    path: Path
    quantizer: ModuleType
    activations: tuple[Activation, ...]
    ranges: Mapping[str, Range]
    inputs: dict[str, Array]
    expected: Array

    def run(self, path: Path) -> dict[str, Array]:
        """Return the outputs of the file at ``path``."""
        with part(self.target, "runtime").open_artifact(path) as runtime:
            found: dict[str, Array] = runtime.run(self.inputs)
        return found

    def snr_db(self, path: Path) -> float:
        """Return how far the scores of the file at ``path`` are above their error, in decibels."""
        error = self.run(path)[OUTPUT].astype(np.float64) - self.expected
        return float(10 * np.log10((self.expected.astype(np.float64) ** 2).sum() / (error**2).sum()))


@pytest.fixture(scope="module")
def case(tmp_path_factory) -> Callable[[Target], Case]:
    recipe = write_case(tmp_path_factory.mktemp("small"))
    network = api.load(recipe)
    exporter = prepare_export(network, draw_samples(network.recipe))
    samples = draw_samples(network.recipe, noise=0, portraits=5)
    folder = tmp_path_factory.mktemp("float")

    @cache
    def written(target: Target) -> Case:
        path = exporter.write(target, ExportOptions(), folder).path
        quantizer = part(target, "quantize")
        with part(target, "runtime").open_artifact(path) as runtime:
            given = [feed(sample, runtime.inputs, network.recipe) for sample in samples]
            expected = runtime.run(given[-1])[OUTPUT]
        activations = quantizer.activations(path, Precision.INT8)
        names = [one.name for one in activations]
        seen = list(quantizer.observe(path, given, names))
        ranges = {
            name: Range(
                min(0.0, *(float(v[name].min()) for v in seen)), max(0.0, *(float(v[name].max()) for v in seen))
            )
            for name in names
        }
        return Case(target, path, quantizer, activations, ranges, given[-1], expected)

    return written


@pytest.fixture
def quantized(case, tmp_path) -> Callable[..., tuple[Path, QuantizedFile]]:
    def written(target: Target, precision: Precision = Precision.INT8, name: str = "small", **options):
        own = case(target)
        output = tmp_path / f"{name}{own.path.suffix}"
        given = {"ranges": own.ranges if precision.quantizes_activations else {}, **options}
        return output, own.quantizer.quantize(own.path, output, precision, **given)

    return written


@TARGETS
def test_eight_bits_keep_the_scores_and_ranges_that_are_too_small_do_not(case, quantized, target):
    own = case(target)
    before = own.path.read_bytes()
    path, found = quantized(target)
    assert own.snr_db(path) > 22
    assert own.path.read_bytes() == before
    assert found.activations > 10
    assert found.weights >= 9
    halved = {name: Range(one.lowest / 4, one.highest / 4) for name, one in own.ranges.items()}
    assert own.snr_db(quantized(target, ranges=halved)[0]) < 10


@TARGETS
def test_weights_alone_cost_little_and_are_counted(case, quantized, target):
    own = case(target)
    path, found = quantized(target, Precision.INT8_WEIGHTS)
    assert own.snr_db(path) > 35
    assert found.activations == 0
    contents = part(target, "inspection").read_contents(path)
    weights = {one.dtype: one for one in contents.weights}
    assert weights["int8"].size_bytes > 900
    assert found.weight_bytes < 0.5 * found.float_weight_bytes
    whole = part(target, "inspection").read_contents(own.path)
    floats = next(one for one in whole.weights if one.dtype == "float32")
    assert 0 <= found.float_weight_bytes - floats.size_bytes < 600


@TARGETS
def test_the_same_call_gives_the_same_bytes(case, quantized, target):
    first, _ = quantized(target, name="first")
    second, _ = quantized(target, name="second")
    assert first.read_bytes() == second.read_bytes()
    ranges = {name: Range(one.lowest, 1.01 * one.highest) for name, one in case(target).ranges.items()}
    assert quantized(target, name="third", ranges=ranges)[0].read_bytes() != first.read_bytes()


@TARGETS
def test_what_is_kept_computes_in_float(case, quantized, target):
    own = case(target)
    computed = [one.name for one in own.activations if one.operation]
    path, found = quantized(target, kept=computed)
    alone, _ = quantized(target, Precision.INT8_WEIGHTS, name="alone")
    assert found.activations == 0
    np.testing.assert_array_equal(own.run(path)[OUTPUT], own.run(alone)[OUTPUT])
    path, found = quantized(target, kept_weights=computed)
    assert (found.activations, found.weights) == (0, 0)
    np.testing.assert_array_equal(own.run(path)[OUTPUT], own.expected)


@TARGETS
def test_one_convolution_is_kept_by_its_name(case, quantized, target):
    own = case(target)
    first = next(one for one in own.activations if one.takes_weights)
    whole = quantized(target)[1]
    found = quantized(target, kept=[first.name])[1]
    assert (first.name, KEPT) in [(one.name, one.reason) for one in found.left_in_float]
    assert found.weights == whole.weights
    found = quantized(target, kept_weights=[first.name])[1]
    assert found.weights == whole.weights - 1
    assert found.weight_bytes > whole.weight_bytes


@TARGETS
def test_what_is_observed_is_what_the_file_computes(case, target):
    own = case(target)
    names = [one.name for one in own.activations]
    (seen,) = own.quantizer.observe(own.path, [own.inputs], names)
    assert set(seen) == set(names)
    traced = part(target, "traced").trace(own.path, own.inputs, Arithmetic.RUNTIME)
    values = {one.name: one for one in traced.values}
    assert [one.name for one in own.activations if one.operation] == [
        one.name for one in traced.values if one.value.dtype == np.float32
    ]
    for one in own.activations:
        assert seen[one.name].shape == one.shape
        if one.operation:
            np.testing.assert_array_equal(seen[one.name], values[one.name].value)
            assert (one.operation, one.origins) == (values[one.name].operation, values[one.name].origins)
            assert one.channels_last == values[one.name].channels_last


@TARGETS
def test_refusals_name_what_is_wrong(case, quantized, target):
    own = case(target)
    convolution = next(one for one in own.activations if one.takes_weights and one.quantizes)
    for read in convolution.reads:
        some = {name: one for name, one in own.ranges.items() if name != read}
        with pytest.raises(TargetError, match=f"without: {read}"):
            quantized(target, ranges=some)
    with pytest.raises(TargetError, match="have a range that is not finite"):
        quantized(target, ranges={name: Range(one.lowest, float("inf")) for name, one in own.ranges.items()})
    with pytest.raises(TargetError, match=r"kept: nowhere"):
        quantized(target, kept=["nowhere"])
    with pytest.raises(TargetError, match="are not quantized to palette4"):
        quantized(target, Precision.PALETTE4)


def test_onnx_has_no_files_with_16_bit_activations(quantized):
    with pytest.raises(TargetError, match="int8 or int8-weights"):
        quantized(Target.ONNX, Precision.W8A16)


def test_16_bit_activations_keep_more_than_8(case, quantized):
    own = case(Target.TFLITE)
    wide, found = quantized(Target.TFLITE, Precision.W8A16, name="wide")
    assert own.snr_db(wide) > own.snr_db(quantized(Target.TFLITE)[0]) + 3
    assert found.activations > 10


def test_tflite_says_what_stays_in_float_and_what_shares_a_range(case, quantized):
    own = case(Target.TFLITE)
    kinds = {one.name: one.operation for one in own.activations}
    _, found = quantized(Target.TFLITE)
    assert {(kinds[one.name], one.reason) for one in found.left_in_float} >= {
        ("PRELU", "LiteRT's integer kernel for PRELU is slower than its float one")
    }
    assert all(len(group) > 1 for group in found.shared)
    together = {kinds[name] for group in found.shared for name in group}
    assert {"RESHAPE", "RESIZE_BILINEAR"} <= together


def test_a_tflite_file_can_take_and_return_the_integers_themselves(case, quantized):
    own = case(Target.TFLITE)
    plain, _ = quantized(Target.TFLITE, name="plain")
    whole, _ = quantized(Target.TFLITE, name="whole", integer_io=True)
    interpreter = Interpreter(model_path=str(whole))
    runner = interpreter.get_signature_runner("serving_default")
    given, returned = runner.get_input_details()["photo"], runner.get_output_details()[OUTPUT]
    assert (given["dtype"], returned["dtype"]) == (np.int8, np.int8)
    scale, zero = given["quantization"]
    integers = np.clip(np.round(own.inputs["photo"] / np.float32(scale)) + zero, -128, 127).astype(np.int8)
    scale, zero = returned["quantization"]
    found = (runner(photo=integers)[OUTPUT].astype(np.float32) - zero) * np.float32(scale)
    assert np.abs(found - own.run(plain)[OUTPUT]).max() <= 2 * scale
    last = next(one.name for one in reversed(own.activations) if one.shape == own.expected.shape)
    with pytest.raises(TargetError, match="cannot be returned as integers"):
        quantized(Target.TFLITE, integer_io=True, kept=[last])


def test_the_default_kernels_and_the_reference_kernels_agree(case, quantized):
    own = case(Target.TFLITE)
    path, _ = quantized(Target.TFLITE)
    traces = [part(own.target, "traced").trace(path, own.inputs, one) for one in Arithmetic]
    scores = [next(one.value for one in trace.values if one.output == OUTPUT) for trace in traces]
    error = np.abs(scores[0] - scores[1]).max()
    assert error < 0.1 * np.abs(own.expected).max()
