from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from deploykit.quantize.estimators import LEVELS, Seen, estimate, see
from deploykit.targets.quantized import Range
from deploykit.vocab import Estimator


def _seen(*images: np.ndarray) -> Seen:
    def runs() -> Iterator[dict[str, np.ndarray]]:
        return iter({"value": one} for one in images)

    return see(runs)["value"]


def _squared_error(values: np.ndarray, given: Range) -> float:
    scale = (given.highest - given.lowest) / (LEVELS - 1)
    zero = np.rint(-given.lowest / scale)
    levels = np.clip(np.rint(values / scale) + zero, 0, LEVELS - 1)
    return float((((levels - zero) * scale - values) ** 2).mean())


@pytest.fixture(scope="module")
def heavy_tailed() -> list[np.ndarray]:
    rng = np.random.default_rng(4)
    return [rng.standard_t(4, 20_000) for _ in range(8)]


def test_min_max_holds_every_value_and_zero(heavy_tailed):
    found = estimate(_seen(*heavy_tailed), Estimator.MIN_MAX)
    everything = np.concatenate(heavy_tailed)
    assert (found.lowest, found.highest) == (everything.min(), everything.max())
    above = estimate(_seen(np.array([2.0, 3.0])), Estimator.MIN_MAX)
    assert (above.lowest, above.highest) == (0.0, 3.0)


def test_a_moving_average_lies_between_the_images(heavy_tailed):
    found = estimate(_seen(*heavy_tailed), Estimator.MOVING_AVERAGE)
    highest = [one.max() for one in heavy_tailed]
    assert min(highest) < found.highest < max(highest)
    # The last image weighs more than the first.
    late = estimate(_seen(np.array([0.0, 1.0]), np.array([0.0, 1.0]), np.array([0.0, 9.0])), Estimator.MOVING_AVERAGE)
    early = estimate(_seen(np.array([0.0, 9.0]), np.array([0.0, 1.0]), np.array([0.0, 1.0])), Estimator.MOVING_AVERAGE)
    assert late.highest > early.highest


def test_a_percentile_leaves_out_one_value_in_ten_thousand(heavy_tailed):
    found = estimate(_seen(*heavy_tailed), Estimator.PERCENTILE)
    everything = np.concatenate(heavy_tailed)
    outside = ((everything < found.lowest) | (everything > found.highest)).mean()
    assert 0 < outside < 5e-4
    assert found.highest < everything.max() / 2


def test_the_mean_squared_error_is_smaller_than_that_of_min_max(heavy_tailed):
    seen, everything = _seen(*heavy_tailed), np.concatenate(heavy_tailed)
    errors = {one: _squared_error(everything, estimate(seen, one)) for one in Estimator}
    assert errors[Estimator.MSE] < 0.8 * errors[Estimator.MIN_MAX]
    assert errors[Estimator.MSE] <= 1.01 * min(errors.values())


def test_entropy_clips_a_few_far_values_and_leaves_an_even_distribution_alone():
    rng = np.random.default_rng(5)
    far = np.concatenate([rng.normal(0, 1, 50_000), [40.0]])
    assert estimate(_seen(far), Estimator.ENTROPY).highest < 30
    even = estimate(_seen(rng.uniform(-1, 1, 50_000)), Estimator.ENTROPY)
    assert even.highest > 0.9


@pytest.mark.parametrize("estimator", list(Estimator))
def test_a_constant_and_nothing_at_all_have_a_range(estimator):
    assert estimate(_seen(np.zeros(5)), estimator) == Range(0.0, 0.0)
    assert estimate(_seen(np.full(5, 3.0)), estimator).highest == pytest.approx(3.0, rel=1e-3)
    assert estimate(_seen(np.zeros(0)), estimator) == Range(0.0, 0.0)


@pytest.mark.parametrize("estimator", list(Estimator))
def test_half_precision_and_values_that_hardly_differ_have_a_range(estimator):
    close = np.array([5.0, 5.0, 5.0 + 2**-8], np.float16)
    assert 5.0 <= estimate(_seen(close, close), estimator).highest <= 5.01


@pytest.mark.parametrize("estimator", list(Estimator))
def test_what_is_not_finite_has_none(estimator):
    with pytest.raises(ValueError, match="not finite"):
        estimate(_seen(np.array([1.0, np.nan])), estimator)
    with pytest.raises(ValueError, match="not finite"):
        estimate(_seen(np.array([1.0, np.inf])), estimator)


def test_a_range_without_zero_is_refused():
    with pytest.raises(ValueError, match="holds zero"):
        Range(1.0, 2.0)
