from __future__ import annotations

import pytest
import torch
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2
from optimize_cases import noise, same, wrong_records
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import common_subexpressions as rule
from deploykit.graph.passes.common_subexpressions import common_subexpressions

IMAGE = (1, 4, 6, 5)
CASES = {
    "pointwise": (lambda m, x: x.exp() * x.exp().sum(), {"exp": 1, "sum": 1, "mul": 1}),
    "one convolution twice": (lambda m, x: m.a(x) * m.a(x).relu(), {"conv2d": 1, "relu": 1, "mul": 1}),
    "chains": (lambda m, x: m.a(x.exp()).relu() - 2 * m.a(x.exp()).relu(), {"exp": 1, "conv2d": 1, "relu": 1}),
    "parts": (lambda m, x: x.chunk(2, 1)[0] * x.chunk(2, 1)[0].relu(), {"split": 1, "relu": 1, "mul": 1}),
}
KEPT = {
    "other weights": lambda m, x: m.a(x) * m.b(x),
    "other numbers": lambda m, x: x.clamp(0, 1) * x.clamp(0, 2),
    "whole and decimal numbers": lambda m, x: (x + 1) * (x + 1.0),
    "other operands": lambda m, x: (x - x.exp()) * (x.exp() - x),
    "random": lambda m, x: (x * 0 + torch.rand_like(x)) - torch.rand_like(x),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**{name: forward for name, (forward, _) in CASES.items()}, **KEPT}
    networks = {name: Calls(forward, a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 1)) for name, forward in forwards.items()}
    return captured_together(networks, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_what_repeats_is_computed_once(name, graphs):
    before = graphs[name]
    after = common_subexpressions(before)
    found = operations(after)
    assert {operation: found[operation] for operation in CASES[name][1]} == CASES[name][1]
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    assert after.report(rule.NAME).fired
    assert same(common_subexpressions(after), after)


@pytest.mark.parametrize("name", KEPT)
def test_what_differs_stays(name, graphs):
    after = common_subexpressions(graphs[name])
    merged = [fired.detail for fired in after.report(rule.NAME).fired]
    assert merged == (["aten.exp.default computed once"] if name == "other operands" else [])


def test_results_of_the_network_stay_apart():
    networks = {"out": Calls(lambda m, x: x.exp()), "other": Calls(lambda m, x: x.exp())}
    graph = captured_together(
        {"both": Calls(lambda m, x: torch.cat([m.a(x), m.b(x)]), a=networks["out"], b=networks["other"])}, *IMAGE
    )["both"]
    result = next(node for node in graph.module.graph.nodes if node.op == "output")
    one, two = graph.module.graph.find_nodes(op="call_function", target=torch.ops.aten.exp.default)
    result.args = ((one, two),)
    graph.module.recompile()
    assert operations(common_subexpressions(graph))["exp"] == 2


def test_numbers_of_another_type_would_be_wrong(graphs, monkeypatch):
    """The twin: were the arguments not told apart, the result would differ."""
    monkeypatch.setattr(rule, "_frozen", lambda value: tuple(v for v in value if not isinstance(v, (int, float))))
    before = graphs["other numbers"]
    assert relative_l2(before, common_subexpressions(before), *IMAGE) > 1e-3
