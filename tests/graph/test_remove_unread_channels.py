from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2
from optimize_cases import noise, same, wrong_records
from torch import Tensor, fx, nn

from deploykit.graph.cost import graph_cost
from deploykit.graph.graph import Graph, aten
from deploykit.graph.optimize import optimize
from deploykit.graph.passes import remove_unread_channels as rule
from deploykit.graph.passes.constant_channels import NEGLIGIBLE, constant_channels
from deploykit.vocab import Convention

IMAGE = (1, 6, 8, 6)


def _also_returned(m: Calls, x: Tensor) -> tuple[Tensor, Tensor]:
    y = F.relu(m.norm(m.a(x)))
    return m.valid(y) + y.sum((1, 2, 3), keepdim=True)


# Case → how many of the six channels the first convolution keeps.
CASES = {
    "constant before a convolution that does not pad": (lambda m, x: m.valid(F.relu(m.norm(m.a(x)))), 4),
    "through a slope": (lambda m, x: m.valid(m.slope(m.norm(m.a(x)))), 4),
    "through pooling and resizing": (
        lambda m, x: m.valid(F.interpolate(F.max_pool2d(F.hardswish(m.norm(m.a(x))), 2), scale_factor=2)),
        4,
    ),
    "through a sum": (lambda m, x: m.valid(F.relu(m.norm(m.a(x)) + m.norm(m.b(x)))), 4),
    "through a concatenation": (lambda m, x: m.wide(torch.cat([x.exp(), F.relu(m.norm(m.a(x)))], 1)), 4),
    "through a depthwise convolution": (lambda m, x: m.valid(F.relu(m.deep(m.norm(m.a(x))))), 4),
    "zero before one that pads": (lambda m, x: m.b(m.norm(m.a(x)) * m.switch), 5),
    "unread": (lambda m, x: m.blind(F.relu(m.a(x))), 5),
    "all of it constant": (lambda m, x: m.valid(F.relu(m.dead_norm(m.a(x)))), 1),
    "border of its own number": (lambda m, x: m.valid(F.pad(F.relu(m.a(x) * m.switch), [1, 1, 1, 1])), 5),
    "reflected border": (lambda m, x: m.valid(F.pad(m.norm(m.a(x)), [1, 1, 1, 1], mode="reflect")), 4),
}
# Nothing goes: the first convolution keeps all six.
KEPT = {
    "constant before one that pads": lambda m, x: m.b(F.relu(m.norm(m.a(x)) + 9.0)),
    "constant in a border of zeros": lambda m, x: m.valid(F.pad(F.relu(m.norm(m.a(x)) + 9.0), [1, 1, 1, 1])),
    "zero in a border of ones": lambda m, x: m.b(F.pad(m.a(x) * m.switch, [1, 1, 1, 1], value=1.0)),
    "returned": lambda m, x: F.relu(m.norm(m.a(x))),
    "read as a whole too": _also_returned,
    "softmax": lambda m, x: m.valid(torch.softmax(m.norm(m.a(x)), 1)),
    "grouped": lambda m, x: m.pairs(m.norm(m.a(x))),
    "depthwise with two outputs": lambda m, x: m.doubled(m.norm(m.a(x))),
    "sum with the input": lambda m, x: m.blind(m.a(x) + x),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**{name: forward for name, (forward, _) in CASES.items()}, **KEPT}
    networks = {
        name: Calls(
            forward, a=nn.Conv2d(6, 6, 3, padding=1), b=nn.Conv2d(6, 6, 3, padding=1), valid=nn.Conv2d(6, 3, 3),
            wide=nn.Conv2d(12, 3, 1), deep=nn.Conv2d(6, 6, 3, groups=6), blind=nn.Conv2d(6, 3, 1),
            pairs=nn.Conv2d(6, 6, 1, groups=3), doubled=nn.Conv2d(6, 12, 1, groups=6), norm=nn.BatchNorm2d(6),
            dead_norm=nn.BatchNorm2d(6), slope=nn.PReLU(6), switch=nn.Parameter(torch.empty(6, 1, 1)),
        )
        for name, forward in forwards.items()
    }  # fmt: skip
    graphs = captured_together(networks, *IMAGE)
    for graph in graphs.values():
        for path, parameter in graph.module.named_parameters():
            if path.endswith(".norm.weight"):
                parameter.data[[1, 4]] = 0
            elif path.endswith("dead_norm.weight"):
                parameter.data.zero_()
            elif path.endswith("blind.weight"):
                parameter.data[:, 2] = 0
            elif path.endswith("switch"):
                parameter.data[2] = 0
    return graphs


def _first(graph: Graph) -> fx.Node:
    return next(iter(graph.module.graph.find_nodes(op="call_function", target=aten.conv2d.default)))


@pytest.mark.parametrize("name", CASES)
def test_what_nothing_depends_on_goes(name, graphs):
    before = graphs[name]
    after = optimize(before)
    assert _first(after).meta["val"].shape[1] == CASES[name][1]
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    assert graph_cost(after).macs[Convention.MACS] < graph_cost(before).macs[Convention.MACS]
    again = optimize(after)
    assert same(again, after)
    assert not any(report.fired for report in again.reports[len(after.reports) :])


@pytest.mark.parametrize("name", KEPT)
def test_what_something_depends_on_stays(name, graphs):
    before = graphs[name]
    after = rule.remove_unread_channels(before)
    assert _first(after).meta["val"].shape[1] == 6
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))


def test_a_weight_that_only_costs_time_becomes_zero(graphs):
    before = graphs["unread"].copy()
    weight = next(p for path, p in before.module.named_parameters() if path.endswith("blind.weight"))
    weight.data[:, 2] = NEGLIGIBLE / 10
    after = rule.remove_unread_channels(before)
    assert any("below 1e-30" in fired.detail for fired in after.report(rule.NAME).fired)
    assert _first(after).meta["val"].shape[1] == 5
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_a_small_weight_that_counts_stays(graphs):
    before = graphs["unread"].copy()
    weight = next(p for path, p in before.module.named_parameters() if path.endswith("blind.weight"))
    weight.data[:, 2] = 1e-20
    assert _first(rule.remove_unread_channels(before)).meta["val"].shape[1] == 6


@pytest.mark.parametrize("name", ["constant before one that pads", "constant in a border of zeros"])
def test_the_border_would_be_wrong(name, graphs, monkeypatch):
    """The twin of the refusal: a constant moved past a border of zeros is wrong along it."""
    monkeypatch.setattr(rule, "pads", lambda node: False)
    monkeypatch.setattr("deploykit.graph.passes.constant_channels.pads", lambda node: False)
    monkeypatch.setattr(rule, "constant_channels", _without_borders)
    before = graphs[name]
    assert relative_l2(before, rule.remove_unread_channels(before), *IMAGE) > 1e-3


def _pad(module: fx.GraphModule) -> object:
    captured = (aten.pad.default, aten.constant_pad_nd.default)
    return next((node.target for node in module.graph.nodes if node.target in captured), aten.pad.default)


def _without_borders(module: fx.GraphModule) -> dict[fx.Node, Tensor]:
    known = constant_channels(module)
    for node in module.graph.find_nodes(op="call_function", target=_pad(module)):
        known[node] = known[node.args[0]]
    return known


def test_a_constant_that_is_lost_is_caught(graphs, monkeypatch):
    """The twin of the bound: the constants count as 0."""
    name = "constant before a convolution that does not pad"
    monkeypatch.setattr(
        rule,
        "constant_channels",
        lambda m: {n: torch.where(v.isnan(), v, 0 * v) for n, v in constant_channels(m).items()},
    )
    before = graphs[name]
    assert relative_l2(before, rule.remove_unread_channels(before), *IMAGE) > 1e-3


def test_the_graph_given_is_left_untouched(graphs):
    before = graphs["unread"]
    copy = before.copy()
    rule.remove_unread_channels(before)
    assert same(before, copy)
    assert operations(before)["conv2d"] == 2
