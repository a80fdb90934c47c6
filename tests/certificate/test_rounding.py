"""The bounds: a search for inputs, orders of summation and arithmetic that come near them never gets past."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from certificate_cases import NETWORKS

from deploykit.certificate.box import inner_float32, magnitudes, rounded_up, widened
from deploykit.certificate.layer import CONVOLUTION, LINEAR, Layer
from deploykit.certificate.records import Box
from deploykit.certificate.rounding import FLOAT16, FLOAT32, absolute_sums, bound
from deploykit.graph.capture import weights

CANDIDATES = 200
NEAR = 0.25


def accumulate(terms, bias, direction, fused):
    """Add float32 products one after the other; each input is the one of its candidates that rounds furthest.

    Returns the result and the inputs chosen.
    """
    total, chosen = np.float32(bias), []
    for weight, candidates in terms:
        exact = np.float64(weight) * candidates.astype(np.float64)
        products = exact if fused else (weight * candidates).astype(np.float64)
        after = (np.float64(total) + products).astype(np.float32)
        gained = direction * (after.astype(np.float64) - (np.float64(total) + exact))
        best = int(gained.argmax())
        total = after[best]
        chosen.append(candidates[best])
    return total, chosen


def ends(low, high, weight, aligned):
    """The inputs nearest to one end of the box, of the largest product or of the largest magnitude."""
    upper = weight > 0 if aligned else abs(high) >= abs(low)
    start, towards = (high, -np.inf) if upper else (low, np.inf)
    found = [start]
    while len(found) < CANDIDATES:
        found.append(np.nextafter(found[-1], np.float32(towards)))
    candidates = np.array(found, dtype=np.float32)
    return candidates[(candidates >= low) & (candidates <= high)]


def furthest(exact_row, row, channels, exact_bias, bias, box):
    """The largest error found over orders of summation, directions and kinds of arithmetic."""
    low, high = inner_float32(box)
    rng = np.random.default_rng(5)
    worst = 0.0
    for aligned, fused, direction in product((True, False), (False, True), (1.0, -1.0)):
        candidates = [ends(low[c], high[c], w, aligned) for w, c in zip(row, channels, strict=True)]
        size = np.array([abs(float(w) * float(c[0])) for w, c in zip(row, candidates, strict=True)])
        orders = [np.argsort(-size), np.argsort(size), rng.permutation(len(row))]
        for order in orders:
            total, chosen = accumulate([(row[i], candidates[i]) for i in order], bias, direction, fused)
            exact = math.fsum(
                [exact_bias, *(float(exact_row[i]) * float(x) for i, x in zip(order, chosen, strict=True))]
            )
            worst = max(worst, abs(float(total) - exact))
    return worst


def rows_of(layer, weight):
    """Yield the weights of each output channel with the input channel that each belongs to."""
    per_group, taps = weight.shape[1], int(np.prod(weight.shape[2:]))
    for out in range(len(weight)):
        first = out // (len(weight) // layer.groups) * per_group
        yield weight[out].ravel(), np.repeat(np.arange(first, first + per_group), taps)


def searched_shares(layer, exact, box):
    """The share of its bound that the search reaches, for each output channel."""
    shipped = tuple(values.astype(np.float32) for values in exact)
    limits = bound(layer, exact, exact, magnitudes(box), FLOAT32)
    exact_rows = [row for row, _ in rows_of(layer, exact[0])]
    found = [
        furthest(exact_rows[out], row, channels, exact[1][out], shipped[1][out], box)
        for out, (row, channels) in enumerate(rows_of(layer, shipped[0]))
    ]
    return np.array(found) / np.array(limits.bounds)


@pytest.mark.parametrize("name", ["fold", "biased", "repvgg", "grouped", "vectors"])
def test_the_search_never_exceeds_the_bound_of_a_block(case, name):
    assert name in NETWORKS
    for replaced in case.subject.blocks:
        if replaced.name.split(".")[1] != name:
            continue
        folded = weights(case.deploy)
        exact = tuple(folded[str(getattr(replaced.layer, leaf).target)].numpy() for leaf in ("weight", "bias"))
        shares = searched_shares(replaced.layer, exact, case.blocks[replaced.name].box)
        assert (shares <= 1).all()
        assert shares.max() > NEAR


@pytest.mark.parametrize(("terms", "share"), [(1, 0.6), (3, 0.45), (9, 0.35), (32, 0.3)])
def test_the_bound_is_not_vacuous(terms, share):
    """A dot product whose terms all have one sign: the worst order comes within a stated share of the bound."""
    rng = np.random.default_rng(terms)
    layer = Layer(LINEAR, None, object())
    exact = (rng.uniform(0.5, 1.0, (4, terms)), rng.uniform(0.5, 1.0, 4))
    shares = searched_shares(layer, exact, Box((1.0,) * terms, (1.9,) * terms))
    assert (shares <= 1).all()
    assert shares.max() > share


def test_a_bound_without_the_rounding_of_weights_is_exceeded():
    """The negative twin: half a unit in the last place of one weight is more than one rounding allows."""
    layer = Layer(LINEAR, None, None)
    exact = (np.array([[1 + 2.0**-24 * 0.999]]), np.zeros(1))
    x = np.array([1.0])
    whole = bound(layer, exact, exact, x, FLOAT32)
    assert whole.bounds[0] >= 2.0**-24 * 0.999 + 2.0**-24
    assert whole.weight_rounding == pytest.approx(2.0**-24 * 0.999, rel=1e-3)
    unmoved = bound(layer, (exact[0].astype(np.float32).astype(float), exact[1]), exact, x, FLOAT32)
    assert unmoved.weight_rounding == 0
    assert unmoved.bounds[0] < whole.bounds[0]


def test_gamma_counts_each_product_and_the_bias():
    layer = Layer(CONVOLUTION, None, object(), (1, 1), (1, 1), (1, 1), 2)
    exact = (np.ones((4, 3, 3, 3)), np.ones(4))
    limits = bound(layer, exact, exact, np.full(6, 2.0), FLOAT32)
    n = 27 + 1
    assert limits.roundings == n
    assert limits.gamma == n * 2.0**-24 / (1 - n * 2.0**-24)
    assert limits.bounds == (rounded_up(limits.gamma * (27 * 2 + 1)),) * 4
    assert (
        bound(Layer(CONVOLUTION, None, None, (1, 1), (1, 1), (1, 1), 2), exact, exact, np.ones(6), FLOAT32).roundings
        == 27
    )


def test_places_of_a_transposed_convolution_read_parts_of_its_kernel():
    layer = Layer("transposed convolution", None, object(), (2, 2), (1, 1), (1, 1), 1)
    sums = absolute_sums(layer, np.ones((5, 3, 3, 3)), np.ones(5))
    assert sorted(sums[:, 0]) == [5 * 1, 5 * 2, 5 * 2, 5 * 4]


def test_half_precision_says_nothing_from_2048_roundings_on():
    layer = Layer(LINEAR, None, None)
    exact = (np.full((1, 2048), 0.01), np.zeros(1))
    limits = bound(layer, exact, exact, np.ones(2048), FLOAT16)
    assert limits.gamma is None
    assert limits.worst_bound is None
    assert bound(
        layer, (exact[0][:, :2047], exact[1]), (exact[0][:, :2047], exact[1]), np.ones(2047), FLOAT16
    ).worst_bound


@pytest.mark.parametrize(("largest", "overflows"), [(600.0, False), (700.0, True)])
def test_overflow_of_half_precision_is_found(largest, overflows):
    layer = Layer(LINEAR, None, None)
    exact = (np.full((1, 100), 1.0), np.zeros(1))
    assert bound(layer, exact, exact, np.full(100, largest), FLOAT16).overflows == overflows


def test_a_weight_too_large_for_the_precision_overflows():
    layer = Layer(LINEAR, None, None)
    exact = (np.array([[1e6]]), np.zeros(1))
    assert bound(layer, exact, exact, np.ones(1), FLOAT16).overflows
    assert not bound(layer, exact, exact, np.ones(1), FLOAT32).overflows


def test_a_box_holds_what_was_observed_with_room_to_spare():
    low, high = np.array([-1.23456, 0.0, 5.0, -0.0]), np.array([2.0, 0.0, 5.0, 1e-30])
    box = widened(low, high)
    assert (np.array(box.lower) <= low).all()
    assert (np.array(box.upper) >= high).all()
    assert box.lower[0] == pytest.approx(-1.23456 - 0.25 * 3.23456, rel=1e-3)
    assert (box.lower[1], box.upper[1]) == (0.0, 0.0)
    assert box.lower[2] == pytest.approx(4.995)
    inner = inner_float32(box)
    assert (inner[0].astype(float) >= box.lower).all()
    assert (inner[1].astype(float) <= box.upper).all()


@pytest.mark.parametrize("value", [1.0, 1.2345678, -1.2345678, 9.9999, -9.9999, 1e-38, 123456.0, 0.0])
def test_rounding_up_never_goes_down(value):
    assert value <= rounded_up(value) <= value + 1e-3 * abs(value)
