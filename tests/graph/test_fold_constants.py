from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2, skip_reasons
from optimize_cases import same
from torch import Tensor, nn

from deploykit.graph.graph import Graph, aten
from deploykit.graph.passes import fold_constants as rule
from deploykit.graph.passes.fold_constants import fold_constants

IMAGE = (1, 4, 6, 5)


def _grid(x: Tensor) -> Tensor:
    """A sampling grid (1, H, W, 2), as alignment modules build it in their forward."""
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 5), indexing="ij")
    return torch.stack([columns, rows], -1).unsqueeze(0).expand(x.shape[0], -1, -1, -1)


CASES = {
    "sampling grid": (lambda m, x: F.grid_sample(x, _grid(x) * 0.9, align_corners=True), {"grid_sampler": 1}),
    "grid and flow": (
        lambda m, x: F.grid_sample(x, _grid(x) + m.flow(x).permute(0, 2, 3, 1), align_corners=False),
        {"grid_sampler": 1, "add": 1, "conv2d": 1, "permute": 1},
    ),
    "range": (lambda m, x: x * torch.arange(5, dtype=x.dtype), {"mul": 1}),
    "factor made of a weight": (lambda m, x: x * torch.sigmoid(m.factor).view(1, 4, 1, 1), {"mul": 1}),
    "computed kernel": (lambda m, x: F.conv2d(x, m.flow.weight - m.flow.weight.mean()), {"conv2d": 1}),
    "one of several results": (lambda m, x: x * m.factor.chunk(2)[1].sum(), {"mul": 1}),
}
KEPT = {
    "of the input": (lambda m, x: x * x.mean((2, 3), keepdim=True), {"mul": 1, "mean": 1}),
    "random": (lambda m, x: x + 0 * torch.rand(5), {"add": 1, "mul": 1, "rand": 1}),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    networks = {
        name: Calls(forward, flow=nn.Conv2d(4, 2, 1), factor=nn.Parameter(torch.empty(4)))
        for name, (forward, _) in {**CASES, **KEPT}.items()
    }
    return captured_together(networks, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_what_no_input_decides_is_computed_once(name, graphs):
    before = graphs[name]
    after = fold_constants(before)
    assert operations(after) == CASES[name][1]
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert after.report(rule.NAME).fired
    again = fold_constants(after)
    assert same(again, after)
    assert not again.reports[-1].fired


@pytest.mark.parametrize("name", KEPT)
def test_the_rest_is_computed_each_time(name, graphs):
    after = fold_constants(graphs[name])
    assert operations(after) == KEPT[name][1]
    assert not after.report(rule.NAME).fired


def test_what_would_be_large_is_not_stored(graphs, monkeypatch):
    monkeypatch.setattr(rule, "LARGEST", 8)
    after = fold_constants(graphs["sampling grid"])
    assert operations(after)["linspace"]
    assert skip_reasons(after, rule.NAME) == ["it would be stored as 60 values, made of 0"]
    assert relative_l2(graphs["sampling grid"], after, *IMAGE) <= BOUND


def test_a_constant_of_another_input_is_caught(graphs, monkeypatch):
    """The twin of the bound: a stored value that is off by a thousandth."""
    called = rule._called
    monkeypatch.setattr(
        rule,
        "_called",
        lambda node, given: called(node, given) * (1.001 if node.target is aten.linspace.default else 1),
    )
    before = graphs["sampling grid"]
    assert relative_l2(before, fold_constants(before), *IMAGE) > 1e-6
