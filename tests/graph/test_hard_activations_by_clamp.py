from __future__ import annotations

import pytest
import torch
from form_cases import same_form_twice
from graph_cases import Calls, captured, operations, relative_l2
from torch import nn

from deploykit.graph.passes import hard_activations_by_clamp as rule
from deploykit.graph.passes.hard_activations_by_clamp import hard_activations_by_clamp

SHAPE = (2, 3, 4, 5)


@pytest.mark.parametrize(("activation", "products"), [(nn.Hardsigmoid(), 1), (nn.Hardswish(), 2)])
def test_a_hard_activation_is_a_clamped_line(activation, products):
    network = Calls(lambda m, x: m.activation(5 * m.conv(x)), conv=nn.Conv2d(3, 3, 1), activation=activation)
    before = captured(network, *SHAPE)
    after = same_form_twice(hard_activations_by_clamp, before, *SHAPE)
    assert operations(after) == {"conv2d": 1, "mul": 1 + products, "add": 1, "clamp": 1}
    assert after.report(rule.NAME).fired[0].modules == ("activation",)
    # The twin: another slope is seen.
    steeper = after.copy()
    for node in steeper.module.graph.nodes:
        if node.op == "call_function" and node.args[1:] == (1 / 6,):
            node.args = (node.args[0], 1 / 5)
    steeper.module.recompile()
    assert relative_l2(before, steeper, *SHAPE) > 1e-3


def test_the_ends_are_exact():
    x = torch.tensor([-1e30, -3.0, 0.0, 3.0, 1e30], dtype=torch.float64).reshape(1, 1, 1, 5)
    after = hard_activations_by_clamp(captured(nn.Hardsigmoid(), 1, 1, 1, 5))
    assert after.run(x)[0].flatten().tolist() == [0, 0, 0.5, 1, 1]
