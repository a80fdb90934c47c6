"""Comparison by hand-computed figures, and masks that count only where the reference has a margin."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deploykit.records import Tolerance
from deploykit.verify.compare import compare

NAN, INF = math.nan, math.inf


def bounds(**values):
    return Tolerance(reason="of this test", **values)


LOOSE = bounds(max_abs_error=1e30, relative_l2=1e30, mask_agreement=1e-9, wrong_pixels=10**9)


def column(*values):
    """One sample (1, C, 1, 1)."""
    return np.array(values, dtype=np.float64).reshape(1, -1, 1, 1)


def pixels(*scores):
    """One sample (1, 2, 1, W): two class scores for each pixel of a row."""
    return np.array(scores, dtype=np.float64).T[None, :, None, :]


def test_figures_computed_by_hand():
    reference = [column(3.0, 4.0), column(0.0, 12.0)]
    measured = [column(3.0, 4.5), column(0.1, 12.0)]
    result = compare("scores", measured, reference, LOOSE)
    assert (result.output, result.samples) == ("scores", 2)
    assert result.max_abs_error == 0.5
    assert result.worst_index == (0, 1, 0, 0)
    assert result.median_abs_error == pytest.approx(0.05)
    assert result.relative_l2 == pytest.approx(math.sqrt(0.26 / 169))
    assert result.snr_db == pytest.approx(10 * math.log10(169 / 0.26))
    assert (result.mask_agreement, result.wrong_pixels) == (None, None)
    assert result.passed


def test_the_worst_place_names_sample_and_position():
    reference = [np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 3, 4))]
    measured = [np.zeros((1, 2, 3, 4)), np.zeros((1, 2, 3, 4))]
    measured[1][0, 1, 2, 3] = -0.25
    result = compare("scores", measured, reference, LOOSE)
    assert (result.worst_index, result.max_abs_error) == ((1, 1, 2, 3), 0.25)


def test_float32_is_compared_in_float64():
    reference = [column(1e8)]
    assert compare("o", [reference[0].astype(np.float32)], [column(1e8 + 1)], LOOSE).max_abs_error == 1.0


def test_equal_outputs_have_no_error():
    result = compare("o", [column(1.0, 2.0)], [column(1.0, 2.0)], bounds(max_abs_error=1e-30), classes=2)
    assert (result.max_abs_error, result.relative_l2, result.snr_db) == (0.0, 0.0, INF)
    assert (result.mask_agreement, result.wrong_pixels) == (1.0, 0)
    assert result.passed


def test_a_zero_reference():
    assert compare("o", [column(0.0)], [column(0.0)], bounds(relative_l2=1e-30)).passed
    result = compare("o", [column(1e-9)], [column(0.0)], bounds(relative_l2=1e30))
    assert (result.relative_l2, result.snr_db) == (INF, -INF)
    assert not result.passed


@pytest.mark.parametrize(
    ("measured", "reference"),
    [(NAN, 1.0), (INF, 1.0), (-INF, 1.0), (1.0, NAN), (1.0, INF), (NAN, NAN), (INF, INF), (INF, -INF)],
)
@pytest.mark.parametrize(
    "tolerance",
    [
        bounds(max_abs_error=1e300),
        bounds(relative_l2=1e300),
        bounds(mask_agreement=1e-9),
        bounds(wrong_pixels=10**9),
    ],
)
def test_what_is_not_finite_fails_whatever_the_bound(measured, reference, tolerance):
    result = compare("o", [column(measured, 0.0)], [column(reference, 0.0)], tolerance, classes=2)
    assert not result.passed
    assert "the output holds NaN or infinity" in result.failures


def test_two_infinite_scores_have_no_margin_and_fail():
    assert not compare("o", [column(INF, INF)], [column(INF, INF)], LOOSE, classes=2).passed


def test_one_nan_among_many_values_fails_and_is_located():
    reference = np.random.default_rng(0).normal(size=(1, 2, 8, 8))
    measured = reference.copy()
    measured[0, 1, 4, 5] = NAN
    result = compare("o", [measured], [reference], LOOSE, classes=2)
    assert result.worst_index == (0, 1, 4, 5)
    assert result.mask_agreement == 63 / 64
    assert not result.passed


@pytest.mark.parametrize(
    ("inside", "beyond", "failure"),
    [
        (bounds(max_abs_error=0.5), bounds(max_abs_error=0.4999), "max absolute error 0.5 exceeds"),
        (bounds(relative_l2=0.1), bounds(relative_l2=0.0999), "relative L2 0.1 exceeds"),
        (bounds(mask_agreement=0.5), bounds(mask_agreement=0.5001), "mask agreement 0.50000 is below"),
        (bounds(wrong_pixels=1), bounds(wrong_pixels=0), "1 mask pixels wrong"),
    ],
)
def test_each_bound_holds_at_its_value_and_fails_beyond_it(inside, beyond, failure):
    # The reference has the norm 5, the error the norm 0.5, and one of two pixels changes.
    reference = [pixels((3.0, 2.75), (math.sqrt(25 - 9 - 2.75**2), 0.0))]
    measured = [reference[0] + pixels((0.0, 0.5), (0.0, 0.0))]
    assert compare("o", measured, reference, inside, classes=2).passed
    result = compare("o", measured, reference, beyond, classes=2)
    assert len(result.failures) == 1
    assert failure in result.failures[0]


# Masks


def test_a_changed_pixel_counts_only_beyond_twice_the_tolerance():
    reference = [pixels((1.0, 1.0 - 0.19), (1.0, 1.0 - 0.21), (1.0, 0.0))]
    measured = [pixels((0.0, 1.0), (0.0, 1.0), (1.0, 0.0))]
    result = compare("o", measured, reference, bounds(max_abs_error=0.1), classes=2)
    assert result.wrong_pixels == 1
    assert result.mask_agreement == pytest.approx(1 / 3)


def test_a_large_measured_error_is_no_excuse_for_a_wrong_pixel():
    reference, measured = [pixels((1.0, 0.0))], [pixels((-50.0, 50.0))]
    assert compare("o", measured, reference, bounds(max_abs_error=0.1), classes=2).wrong_pixels == 1


def test_without_an_absolute_bound_the_margin_is_relative_to_the_largest_score():
    reference = [pixels((1.0, 1.0 - 0.19), (1.0, 1.0 - 0.21), (10.0, 0.0))]
    measured = [pixels((0.0, 1.0), (0.0, 1.0), (10.0, 0.0))]
    assert compare("o", measured, reference, bounds(relative_l2=0.01), classes=2).wrong_pixels == 1
    assert compare("o", measured, reference, bounds(relative_l2=0.02), classes=2).wrong_pixels == 0


def test_without_any_bound_every_changed_pixel_with_a_margin_counts():
    reference = [pixels((1.0, 1.0), (1.0, 1.0 - 1e-9))]
    measured = [pixels((0.0, 1.0), (0.0, 1.0))]
    result = compare("o", measured, reference, bounds(wrong_pixels=0), classes=2)
    assert (result.wrong_pixels, result.mask_agreement) == (1, 0.0)
    assert not result.passed


def test_the_margin_is_between_the_two_best_of_several_classes():
    reference, measured = [column(5.0, 4.95, -3.0)], [column(4.9, 5.0, -3.0)]
    assert compare("o", measured, reference, bounds(max_abs_error=0.1), classes=3).wrong_pixels == 0
    assert compare("o", measured, reference, bounds(max_abs_error=0.02), classes=3).wrong_pixels == 1


@pytest.mark.parametrize("classes", [0, 1])
def test_without_two_classes_there_is_no_mask(classes):
    result = compare("o", [column(1.0)], [column(1.0)], bounds(wrong_pixels=0), classes=classes)
    assert (result.mask_agreement, result.wrong_pixels) == (None, None)
    assert result.passed


def test_agreement_is_taken_over_pictures_and_wrong_pixels_over_everything():
    reference = [pixels((1.0, 0.0), (1.0, 0.0)), pixels((1.0, 0.0), (1.0, 0.0))]
    measured = [pixels((0.0, 1.0), (0.0, 1.0)), pixels((1.0, 0.0), (0.0, 1.0))]
    given = {"classes": 2, "tolerance": bounds(max_abs_error=0.1)}
    on_picture = compare("o", measured, reference, **given, pictures=[False, True])
    assert (on_picture.mask_agreement, on_picture.wrong_pixels) == (0.5, 3)
    for pictures in (None, [False, False], [True, True]):
        assert compare("o", measured, reference, **given, pictures=pictures).mask_agreement == 0.25


def test_another_shape_is_a_failure_that_names_both():
    result = compare("o", [column(1.0, 2.0)], [column(1.0)], LOOSE, classes=2)
    assert result.failures == ("shape [1, 2, 1, 1] instead of [1, 1, 1, 1]",)
    assert (result.max_abs_error, result.relative_l2, result.snr_db) == (INF, INF, -INF)
    assert (result.mask_agreement, result.wrong_pixels) == (None, None)


# Calls that are bugs


def test_arrays_that_do_not_belong_together_are_a_bug():
    with pytest.raises(ValueError, match="1 measured samples against 2"):
        compare("o", [column(1.0)], [column(1.0)] * 2, LOOSE)
    with pytest.raises(ValueError, match="0 measured samples"):
        compare("o", [], [], LOOSE)
