"""Integers and what they stand for: the worst rounding, zero, dead channels, biases large beside their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import TargetError
from deploykit.targets.integers import (
    activation_integers,
    bias_integers,
    int8_activations,
    int8_weights,
    packed,
    palette,
    require_finite_weight,
    require_ranges,
    weight_integers,
    weight_scales,
)
from deploykit.targets.quantized import Range

FILE = Path("small.onnx")


def weights(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("axis", [0, 3])
def test_a_weight_is_off_by_half_a_step_of_its_channel_at_most(axis):
    weight = weights(8, 3, 3, 6)
    scales = weight_scales(weight, axis)
    sizes = [1] * 4
    sizes[axis] = -1
    steps = scales.reshape(sizes)
    off = np.abs(weight_integers(weight, scales, axis) * steps - weight)
    assert (off <= 0.5001 * steps).all()
    # The same integers with one scale for all channels are off by more.
    assert (np.abs(weight_integers(weight, np.full_like(scales, scales.max()), axis) * steps - weight) > steps).any()


def test_a_channel_of_zeros_has_a_scale_and_integers_of_zero():
    weight = weights(4, 2, 3, 3)
    weight[1] = 0
    weight[2] = 1e-40
    scales = weight_scales(weight, 0)
    assert (scales > 0).all()
    assert np.isfinite(1 / scales).all()
    assert not weight_integers(weight, scales, 0)[1:3].any()


def test_a_bias_that_is_large_beside_its_weights_fits_into_32_bits():
    weight, bias = weights(2, 1, 1, 1), np.array([0.5, 0.5], np.float32)
    weight[1] = 1e-30
    input_scale = 0.01
    assert (bias / (weight_scales(weight, 0).astype(np.float64) * input_scale) > 2**31).tolist() == [False, True]
    scales = weight_scales(weight, 0, bias, input_scale) * np.float32(input_scale)
    integers = bias_integers(bias, scales)
    assert (np.abs(integers) <= 2**30 + 2**7).all()
    np.testing.assert_allclose(integers * scales.astype(np.float64), bias, rtol=1e-3)


@pytest.mark.parametrize("span", [Range(-1, 3), Range(0, 6), Range(-2.5, 0), Range(0, 0), Range(-1e-30, 0)])
@pytest.mark.parametrize(
    ("lowest", "highest", "symmetric"), [(0, 255, False), (-128, 127, False), (-32768, 32767, True)]
)
def test_the_integers_of_an_activation_span_its_range_and_hold_zero(span, lowest, highest, symmetric):
    numbers = activation_integers(span, lowest, highest, symmetric=symmetric)
    assert lowest <= numbers.zero_point <= highest
    low, high = (numbers.scale * (end - numbers.zero_point) for end in (lowest, highest))
    assert low <= span.lowest + numbers.scale
    assert high >= span.highest - numbers.scale
    if symmetric:
        assert numbers.zero_point == 0


def test_what_has_no_range_is_named():
    with pytest.raises(TargetError, match="1 of 2 without: conv"):
        require_ranges(FILE, ["relu", "conv"], {"relu": Range(0, 1)})
    with pytest.raises(TargetError, match="relu: 0 to inf"):
        require_ranges(FILE, ["relu"], {"relu": Range(0, float("inf"))})
    require_ranges(FILE, ["relu"], {"relu": Range(0, 1)})
    with pytest.raises(TargetError, match="1 of 1 without: relu"):
        int8_activations(FILE, {"relu": "float16"}, {})


def test_a_weight_that_is_not_finite_is_named():
    weight = weights(2, 2)
    require_finite_weight(FILE, "conv.weight", weight)
    weight[1, 1] = np.nan
    with pytest.raises(TargetError, match=r"conv.weight[\s\S]*1 of 4"):
        require_finite_weight(FILE, "conv.weight", weight)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("axis", [0, 1])
def test_int8_weights_are_within_half_a_step_of_their_own_channel(dtype: str, axis: int) -> None:
    weight = weights(6, 5, 3, 3, dtype=dtype) * np.logspace(-2, 2, 6).astype(dtype)[:, None, None, None]
    made = int8_weights(weight, axis)
    assert made.scales.shape == (weight.shape[axis],)
    assert made.scales.dtype == weight.dtype
    steps = np.abs(weight.astype(np.float64) / made.broadcast_scales().astype(np.float64) - made.integers)
    # A scale in half precision is rounded itself: the largest of 127 integers may miss by another 127 / 2048.
    assert steps.max() <= 0.5 + (127 / 2048 if dtype == "float16" else 1e-5)
    others = tuple(other for other in range(4) if other != axis)
    assert (np.abs(made.integers.astype(int)).max(axis=others) == 127).all()


def test_channels_of_zeros_and_of_numbers_too_small_for_their_dtype_have_a_scale_and_integers_of_zero() -> None:
    weight = weights(3, 4, dtype="float16")
    weight[0] = 0
    weight[1] = 6e-8
    made = int8_weights(weight, 0)
    assert made.scales[0] == made.scales[1] == 1
    assert not made.integers[:2].any()
    assert made.integers[2].any()


@pytest.mark.parametrize("bits", [4, 6])
def test_a_palette_serves_better_than_even_steps_and_is_the_same_each_time(bits: int) -> None:
    weight = weights(20, 30, 3)
    first, second = palette(weight, bits), palette(weight, bits)
    assert first.table.shape == (2**bits,)
    assert (np.diff(first.table) >= 0).all()
    np.testing.assert_array_equal(first.table, second.table)
    np.testing.assert_array_equal(first.indices, second.indices)
    even = np.linspace(weight.min(), weight.max(), 2**bits)
    by_even = np.abs(weight[..., None] - even).min(-1)
    error = np.abs(first.table[first.indices] - weight)
    assert (error**2).mean() < 0.8 * (by_even**2).mean()
    nearest = np.abs(weight[..., None] - first.table).min(-1)
    np.testing.assert_allclose(error, nearest, atol=1e-6)


def test_a_palette_tells_few_values_exactly() -> None:
    weight = np.random.default_rng(0).choice(np.float32([0, 0.25, 0.75, 1]), size=(7, 9))
    made = palette(weight, 4)
    np.testing.assert_array_equal(made.table[made.indices], weight)


@pytest.mark.parametrize("bits", [4, 6])
def test_packed_indices_have_no_gaps(bits: int) -> None:
    indices = np.random.default_rng(0).integers(0, 2**bits, 51).astype(np.uint8)
    whole = packed(indices, bits)
    assert whole.nbytes == -(-51 * bits // 8)
    stream = np.unpackbits(whole, bitorder="little")[: 51 * bits].reshape(51, bits)
    np.testing.assert_array_equal(stream @ (1 << np.arange(bits)), indices)


@pytest.mark.parametrize("spanned", [Range(0, 6), Range(-1.5, 0), Range(-0.3, 40), Range(-2e-9, 5e-9)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_int8_integers_of_an_activation_span_its_range(spanned: Range, dtype: str) -> None:
    stored = int8_activations(FILE, {"one": dtype}, {"one": spanned})["one"]
    assert np.dtype(dtype).type(stored.scale) == stored.scale
    scale = stored.scale
    assert scale > 0
    step = scale * (1.13 if dtype == "float16" else 1.001)
    assert scale * (-128 - stored.zero_point) == pytest.approx(spanned.lowest, abs=step / 2)
    if spanned.highest > 1e-6:
        assert scale * (127 - stored.zero_point) == pytest.approx(spanned.highest, abs=step)


def test_an_activation_that_is_always_zero_has_a_scale() -> None:
    assert int8_activations(FILE, {"one": "float16"}, {"one": Range(0, 0)})["one"].scale == 1
