from __future__ import annotations

import copy

import pytest
import torch
from graph_cases import Calls, captured
from torch import nn

from deploykit.graph.graph import add_weight, aten, calls, computed_constant, erase_unread, tidy

IMAGE = (1, 4, 6, 6)


@pytest.fixture
def graph():
    network = Calls(
        lambda m, x: m.a(x) * (m.scale.exp() + 1) + torch.rand(1, dtype=torch.float64) * 0,
        a=nn.Conv2d(4, 4, 1),
        scale=nn.Parameter(torch.ones(4, 1, 1)),
    )
    return captured(network, *IMAGE)


def test_a_copy_shares_nothing(graph):
    copied = graph.copy()
    copy.deepcopy(graph.module)  # warns where the exporter's tree specifications are still attached
    x = torch.randn(*IMAGE, dtype=torch.float64)
    before = graph.run(x)[0]
    copied.module.get_parameter("a.weight").data.zero_()
    node = next(calls(copied.module.graph, aten.conv2d.default))
    node.meta["custom"] = {"deploykit": {}}
    assert torch.equal(graph.run(x)[0], before)
    assert "custom" not in next(calls(graph.module.graph, aten.conv2d.default)).meta
    assert not torch.equal(copied.run(x)[0], before)


def test_expressions_of_weights_are_computed(graph):
    (product, _) = calls(graph.module.graph, aten.mul.Tensor)
    scale = graph.module.scale.detach()
    assert torch.equal(computed_constant(graph.module, product.args[1]), scale.exp() + 1)
    assert computed_constant(graph.module, product) is None
    (random,) = calls(graph.module.graph, aten.rand.default)
    assert computed_constant(graph.module, random) is None


def test_a_weight_path_that_is_taken_gets_a_number(graph):
    conv = next(calls(graph.module.graph, aten.conv2d.default))
    names = [add_weight(graph.module, "a.weight", torch.zeros(2), conv).target for _ in range(2)]
    assert names == ["a.weight_2", "a.weight_3"]
    assert add_weight(graph.module, "new.inner.bias", torch.zeros(2), conv).target == "new.inner.bias"
    tidy(graph.module)
    assert set(dict(graph.module.named_parameters())) == {"scale", "a.weight", "a.bias"}


def test_erasing_takes_along_what_is_left_unread(graph):
    conv = next(calls(graph.module.graph, aten.conv2d.default))
    x = next(n for n in graph.module.graph.nodes if n.op == "placeholder")
    conv.replace_all_uses_with(x)
    erase_unread(graph.module, conv)
    tidy(graph.module)
    assert set(dict(graph.module.named_parameters())) == {"scale"}
    assert x in graph.module.graph.nodes
