from __future__ import annotations

import pytest
import torch
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import constant_on_the_right as rule
from deploykit.graph.passes.constant_on_the_right import constant_on_the_right

IMAGE = (1, 4, 6, 6)
CASES = {
    "number minus": lambda m, x: 1 - m.conv(x),
    "number minus a multiple": lambda m, x: torch.rsub(m.conv(x), 2.5, alpha=3),
    "weight minus": lambda m, x: m.offset - m.conv(x),
    "weight minus a multiple": lambda m, x: torch.sub(m.offset, m.conv(x), alpha=-0.5),
    "number over": lambda m, x: 2 / (9 + m.conv(x).abs()),
    "weight over": lambda m, x: m.offset / (9 + m.conv(x).abs()),
    "of both signs": lambda m, x: torch.reciprocal(m.conv(x).sign() * (m.conv(x).abs() + 1)),
}
KEPT = {
    "tensor minus number": (lambda m, x: m.conv(x) - 1, "sub"),
    "tensor minus weight": (lambda m, x: m.conv(x) - m.offset, "sub"),
    "tensor over weight": (lambda m, x: m.conv(x) / m.offset, "div"),
    "two tensors": (lambda m, x: x - m.conv(x), "sub"),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**CASES, **{name: forward for name, (forward, _) in KEPT.items()}}
    modules = {
        name: Calls(forward, conv=nn.Conv2d(4, 4, 3, padding=1), offset=nn.Parameter(torch.ones(1, 4, 1, 1)))
        for name, forward in forwards.items()
    }
    return captured_together(modules, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_the_tensor_comes_first(name, graphs):
    before = graphs[name]
    text = str(before.module.graph)
    after = constant_on_the_right(before)
    assert not operations(after).keys() & {"rsub", "sub", "reciprocal", "div"}
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert len(after.report(rule.NAME).fired) == 1
    assert str(before.module.graph) == text


@pytest.mark.parametrize("name", KEPT)
def test_other_orders_stay(name, graphs):
    _, operation = KEPT[name]
    after = constant_on_the_right(graphs[name])
    assert operations(after)[operation] == 1
    assert after.report(rule.NAME).fired == ()


def test_swapped_operands_would_be_seen(graphs):
    """What TFLite's converter makes of ``1 - conv(x)``."""
    wrong = graphs["number minus"].copy()
    for node in wrong.module.graph.nodes:
        if str(node.target) == "aten.rsub.Scalar":
            node.target = torch.ops.aten.sub.Tensor
    wrong.module.recompile()
    assert relative_l2(graphs["number minus"], wrong, *IMAGE) > 0.1
