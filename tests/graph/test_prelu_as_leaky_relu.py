from __future__ import annotations

import pytest
import torch
from form_cases import same_form_twice
from graph_cases import BOUND, Calls, captured, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.passes import prelu_as_leaky_relu as rule
from deploykit.graph.passes.prelu_as_leaky_relu import prelu_as_leaky_relu

IMAGE = (2, 6, 3, 5)


@pytest.mark.parametrize("slope", [-2.0, 0.0, 0.25, 1.0, 3.0])
@pytest.mark.parametrize("count", [1, 6])
def test_one_slope_is_a_leaky_relu(slope, count):
    before = captured(nn.Sequential(nn.Conv2d(6, 6, 1), nn.PReLU(count)), *IMAGE)
    before.module.get_parameter("1.weight").data.fill_(slope)
    after = same_form_twice(prelu_as_leaky_relu, before, *IMAGE)
    assert operations(after) == {"conv2d": 1, "leaky_relu": 1}
    assert after.report(rule.NAME).fired[0].modules == ("1",)
    # The twin: another slope is seen.
    (node,) = after.module.graph.find_nodes(op="call_function", target=torch.ops.aten.leaky_relu.default)
    node.update_arg(1, slope + 0.1)
    after.module.recompile()
    assert relative_l2(before, after, *IMAGE) > 1e9 * BOUND


def test_slopes_that_differ_and_those_that_are_no_numbers_stay():
    graph = captured(nn.PReLU(6), *IMAGE)
    assert skip_reasons(prelu_as_leaky_relu(graph), rule.NAME) == [rule.DIFFERENT]
    graph.module.get_parameter("weight").data.fill_(torch.nan)
    assert skip_reasons(prelu_as_leaky_relu(graph), rule.NAME) == [rule.DIFFERENT]
    computed = Calls(lambda m, x: nn.functional.prelu(x, x.mean((0, 2, 3))))
    assert skip_reasons(prelu_as_leaky_relu(captured(computed, *IMAGE)), rule.NAME) == [rule.COMPUTED]
