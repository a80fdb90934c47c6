"""A 1x1 convolution beside a transposed one: composed where that is exact and no dearer, else left with a reason."""

from __future__ import annotations

import pytest
from graph_cases import BOUND, captured, operations, relative_l2, skip_reasons
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from deploykit.graph.cost import graph_cost
from deploykit.graph.passes.compose_convolutions import (
    BORDER,
    MORE_WORK,
    NAME,
    OTHER_READER,
    UNEVEN,
    compose_convolutions,
)
from deploykit.vocab import Convention

SHAPE = (1, 4, 5, 6)


def composed(*layers):
    graph = captured(nn.Sequential(*layers), *SHAPE)
    found = compose_convolutions(graph)
    assert relative_l2(graph, found, *SHAPE) < BOUND
    macs = [graph_cost(one).macs[Convention.CONV_MACS] for one in (graph, found)]
    assert macs[1] <= macs[0]
    return found


@pytest.mark.parametrize(
    ("layers", "left"),
    [
        ((nn.ConvTranspose2d(4, 2, 4, stride=2, padding=1), nn.Conv2d(2, 1, 1)), {"conv_transpose2d": 1}),
        ((nn.ConvTranspose2d(4, 2, 3, stride=2, output_padding=1), nn.Conv2d(2, 1, 1)), {"conv_transpose2d": 1}),
        ((nn.ConvTranspose2d(4, 4, 3, stride=2, groups=4), nn.Conv2d(4, 1, 1)), {"conv_transpose2d": 1}),
        ((nn.ConvTranspose2d(4, 4, 3, stride=2, groups=2), nn.Conv2d(4, 4, 1, groups=4)), {"conv_transpose2d": 1}),
        ((nn.Conv2d(4, 4, 1, bias=False), nn.ConvTranspose2d(4, 2, 3, stride=2)), {"conv_transpose2d": 1}),
        ((nn.Conv2d(4, 4, 1, groups=4, bias=False), nn.ConvTranspose2d(4, 4, 2, groups=2)), {"conv_transpose2d": 1}),
    ],
    ids=["after", "output padding", "after depthwise", "depthwise after", "before", "depthwise before"],
)
def test_a_pair_becomes_one(layers, left):
    found = composed(*layers)
    assert operations(found) == left
    assert len(found.report(NAME).fired) == 1
    assert not compose_convolutions(found).report(NAME).fired[1:], "a second run changes nothing"


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((nn.Conv2d(4, 4, 1), nn.ConvTranspose2d(4, 2, 3)), UNEVEN),
        ((nn.ConvTranspose2d(4, 4, 4, stride=2, groups=4), nn.Conv2d(4, 4, 1)), MORE_WORK),
    ],
    ids=["bias", "more work"],
)
def test_a_pair_that_stays_says_why(layers, reason):
    found = composed(*layers)
    assert operations(found) == {"conv2d": 1, "conv_transpose2d": 1}
    (said,) = skip_reasons(found, NAME)
    assert said.startswith(reason.partition("{")[0])


@pytest.mark.parametrize(
    "layers",
    [
        (nn.ConvTranspose2d(4, 2, 3), nn.Conv2d(2, 1, 1, stride=2)),
        (nn.ConvTranspose2d(4, 2, 3), nn.Conv2d(2, 1, 1, padding=1)),
        (nn.Conv2d(4, 4, 1, stride=2, bias=False), nn.ConvTranspose2d(4, 2, 3)),
        (nn.ConvTranspose2d(4, 2, 3), nn.Conv2d(2, 1, 3)),
        (nn.ConvTranspose2d(4, 4, 1), nn.ConvTranspose2d(4, 4, 3)),
    ],
    ids=["stride after", "padding after", "stride before", "3x3", "both transposed"],
)
def test_other_pairs_are_no_pairs(layers):
    assert not composed(*layers).report(NAME).fired
    assert {BORDER, OTHER_READER}.isdisjoint(skip_reasons(composed(*layers), NAME))


PAIRS = {
    "groups": st.sampled_from([1, 2, 4]),
    "then": st.sampled_from([1, 2]),
    "kernel": st.integers(1, 4),
    "stride": st.integers(1, 3),
    "bias": st.booleans(),
    "first": st.booleans(),
}


def stays_equal(groups, then, kernel, stride, bias, first):
    point = nn.Conv2d(4, 4, 1, groups=then, bias=bias)
    layer = nn.ConvTranspose2d(
        4, 4, kernel, stride=stride, padding=(kernel - 1) // 2, output_padding=stride - 1, groups=groups, bias=bias
    )
    composed(*((point, layer) if first else (layer, point)))


@settings(max_examples=6, deadline=None, database=None, derandomize=True)
@given(**PAIRS)
def test_pairs_stay_equal(**pair):
    stays_equal(**pair)


@pytest.mark.full
@settings(max_examples=100, deadline=None, database=None)
@given(**PAIRS)
def test_any_pair_stays_equal(**pair):
    stays_equal(**pair)
