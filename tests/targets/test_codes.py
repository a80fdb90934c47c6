from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deploykit.errors import TargetError
from deploykit.targets.codes import activation_scale, activation_scales, int8_weights, packed, palette
from deploykit.targets.quantized import Range


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("axis", [0, 1])
def test_int8_weights_are_within_half_a_step_of_their_own_channel(dtype: str, axis: int) -> None:
    weights = normal(6, 5, 3, 3, dtype=dtype) * np.logspace(-2, 2, 6).astype(dtype)[:, None, None, None]
    coded = int8_weights(weights, axis)
    assert coded.scales.shape == (weights.shape[axis],)
    assert coded.scales.dtype == weights.dtype
    steps = np.abs(weights.astype(np.float64) / coded.broadcast_scales().astype(np.float64) - coded.codes)
    # A scale in half precision is rounded itself: the largest of 127 codes may miss by another 127 / 2048.
    assert steps.max() <= 0.5 + (127 / 2048 if dtype == "float16" else 1e-5)
    others = tuple(other for other in range(4) if other != axis)
    assert (np.abs(coded.codes.astype(int)).max(axis=others) == 127).all()


def test_channels_of_zeros_and_of_numbers_too_small_for_their_dtype_have_a_scale_and_no_code() -> None:
    weights = normal(3, 4, dtype="float16")
    weights[0] = 0
    weights[1] = 6e-8
    coded = int8_weights(weights, 0)
    assert coded.scales[0] == coded.scales[1] == 1
    assert not coded.codes[:2].any()
    assert coded.codes[2].any()


@pytest.mark.parametrize("bits", [4, 6])
def test_a_palette_serves_better_than_even_steps_and_is_the_same_each_time(bits: int) -> None:
    weights = normal(20, 30, 3)
    first, second = palette(weights, bits), palette(weights, bits)
    assert first.table.shape == (2**bits,)
    assert (np.diff(first.table) >= 0).all()
    np.testing.assert_array_equal(first.table, second.table)
    np.testing.assert_array_equal(first.codes, second.codes)
    even = np.linspace(weights.min(), weights.max(), 2**bits)
    by_even = np.abs(weights[..., None] - even).min(-1)
    error = np.abs(first.table[first.codes] - weights)
    assert (error**2).mean() < 0.8 * (by_even**2).mean()
    nearest = np.abs(weights[..., None] - first.table).min(-1)
    np.testing.assert_allclose(error, nearest, atol=1e-6)


def test_a_palette_tells_few_values_exactly() -> None:
    weights = np.random.default_rng(0).choice(np.float32([0, 0.25, 0.75, 1]), size=(7, 9))
    coded = palette(weights, 4)
    np.testing.assert_array_equal(coded.table[coded.codes], weights)


@pytest.mark.parametrize("bits", [4, 6])
def test_packed_codes_have_no_gaps(bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, 51).astype(np.uint8)
    whole = packed(codes, bits)
    assert whole.nbytes == -(-51 * bits // 8)
    stream = np.unpackbits(whole, bitorder="little")[: 51 * bits].reshape(51, bits)
    np.testing.assert_array_equal(stream @ (1 << np.arange(bits)), codes)


@pytest.mark.parametrize("spanned", [Range(0, 6), Range(-1.5, 0), Range(-0.3, 40), Range(-2e-9, 5e-9)])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_codes_of_an_activation_span_its_range(spanned: Range, dtype: str) -> None:
    stored = activation_scale(spanned, dtype)
    assert stored.scale.dtype == dtype
    scale = float(stored.scale)
    assert scale > 0
    step = scale * (1.13 if dtype == "float16" else 1.001)
    assert scale * (-128 - stored.zero_point) == pytest.approx(spanned.lowest, abs=step / 2)
    if spanned.highest > 1e-6:
        assert scale * (127 - stored.zero_point) == pytest.approx(spanned.highest, abs=step)


def test_an_activation_that_is_always_zero_has_a_scale() -> None:
    assert activation_scale(Range(0, 0), "float16").scale == 1


def test_activations_without_a_finite_range_are_named() -> None:
    dtypes = {f"v{number}": "float32" for number in range(10)}
    with pytest.raises(TargetError, match="no range") as missing:
        activation_scales(Path("file"), dtypes, {"v0": Range(0, 1)})
    assert missing.value.found == "v1, v2, v3, v4, v5, v6, v7, v8 and 1 more"
    ranges = {name: Range(0, float("inf") if name == "v7" else 1) for name in dtypes}
    with pytest.raises(TargetError, match="no finite range") as endless:
        activation_scales(Path("file"), dtypes, ranges)
    assert endless.value.found == "v7: 0 to inf"
