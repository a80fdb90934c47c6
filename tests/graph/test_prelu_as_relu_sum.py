from __future__ import annotations

import pytest
import torch
from form_cases import damaged, same_form_twice
from graph_cases import BOUND, captured, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.passes import prelu_as_relu_sum as rule
from deploykit.graph.passes.prelu_as_relu_sum import prelu_as_relu_sum

IMAGE = (2, 6, 3, 5)


@pytest.mark.parametrize(
    ("slopes", "form"),
    [
        ((-2.0, -1e-40, 0.0, 0.25, 1.0, 3.0), rule.STEEPER_FORM),
        ((-2.0, -1e-40, 0.0, 0.25, 1.0, 0.5), rule.FORM),
        ((0.3,), rule.FORM),
        ((1.5,), rule.STEEPER_FORM),
    ],
)
def test_a_prelu_of_an_image_is_a_sum_for_any_slope(slopes, form):
    before = captured(nn.Sequential(nn.Conv2d(6, 6, 1), nn.PReLU(len(slopes))), *IMAGE)
    before.module.get_parameter("1.weight").data[:] = torch.tensor(slopes)
    after = same_form_twice(prelu_as_relu_sum, before, *IMAGE)
    assert operations(after) == {"conv2d": 1, "relu": 1, "mul": 2, "add": 1}
    assert after.report(rule.NAME).fired[0].modules == ("1",)
    assert after.report(rule.NAME).fired[0].detail == form
    if len(slopes) > 1:
        assert relative_l2(before, damaged(after, "below"), *IMAGE) > 1e9 * BOUND


def test_a_slope_above_one_does_not_fit_into_the_relu(monkeypatch):
    """The twin: ``relu((1 - a) x)`` is not ``(1 - a) relu(x)`` where 1 - a is negative."""
    before = captured(nn.PReLU(6), *IMAGE)
    before.module.get_parameter("weight").data.fill_(1.5)
    build = rule._sum
    monkeypatch.setattr(rule, "_sum", lambda module, node, slopes, inside: build(module, node, slopes, True))
    assert relative_l2(before, prelu_as_relu_sum(before), *IMAGE) > 1e-2


def test_steep_slopes_and_those_that_are_no_numbers_stay():
    for slope in (17.0, -17.0, torch.nan):
        graph = captured(nn.PReLU(6), *IMAGE)
        graph.module.get_parameter("weight").data[2] = slope
        after = prelu_as_relu_sum(graph)
        assert operations(after) == {"prelu": 1}
        assert skip_reasons(after, rule.NAME) == [rule.STEEP]


class Steep(nn.Module):
    """A PReLU whose slopes are computed from what it gets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.prelu(x, x.mean((0, 2, 3)))


def test_what_does_not_fit_stays_with_the_reason():
    assert skip_reasons(prelu_as_relu_sum(captured(Steep(), *IMAGE)), rule.NAME) == [rule.COMPUTED]
    vector = prelu_as_relu_sum(captured(nn.PReLU(6), 2, 6))
    assert operations(vector) == {"prelu": 1}
    assert skip_reasons(vector, rule.NAME) == [rule.NOT_AN_IMAGE.format(rank=2)]


def test_one_pixel_is_not_worth_three_operations():
    pixel = prelu_as_relu_sum(captured(nn.PReLU(6), 2, 6, 1, 1))
    assert operations(pixel) == {"prelu": 1}
    assert skip_reasons(pixel, rule.NAME) == [rule.ONE_PIXEL]
