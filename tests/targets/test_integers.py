"""Integers and what they stand for: the worst rounding, zero, dead channels, biases large beside their weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import TargetError
from deploykit.targets.integers import (
    activation_integers,
    bias_integers,
    require_finite_weight,
    require_ranges,
    weight_integers,
    weight_scales,
)
from deploykit.targets.quantized import Range

FILE = Path("small.onnx")


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


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


def test_a_weight_that_is_not_finite_is_named():
    weight = weights(2, 2)
    require_finite_weight(FILE, "conv.weight", weight)
    weight[1, 1] = np.nan
    with pytest.raises(TargetError, match=r"conv.weight[\s\S]*1 of 4"):
        require_finite_weight(FILE, "conv.weight", weight)
