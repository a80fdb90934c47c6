from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from graph_cases import Calls, captured
from torch import nn

from deploykit.errors import VerificationError
from deploykit.graph import round as rounding
from deploykit.graph.graph import Graph
from deploykit.graph.round import round_weights, rounding_error

IMAGE = (1, 4, 6, 6)


@pytest.fixture
def graph() -> Graph:
    network = Calls(lambda m, x: (m.a(x), m.b(x)), a=nn.Conv2d(4, 4, 3), b=nn.Conv2d(4, 2, 1))
    graph = captured(network, *IMAGE, outputs=("one", "two"))
    with torch.no_grad():
        graph.module.get_parameter("a.weight").mul_(1 / 3)
    return graph


def _fill(graph: Graph, path: str, *values: float) -> None:
    flat = graph.module.get_parameter(path).detach().view(-1)
    flat[: len(values)] = torch.tensor(values, dtype=torch.float64)


def test_weights_become_float32_once(graph):
    after = round_weights(graph)
    for name, value in graph.module.state_dict().items():
        assert value.dtype == torch.float64
        assert torch.equal(after.module.state_dict()[name], value.float())
    (fired,) = after.report(rounding.NAME).fired
    assert "158 values rounded" in fired.detail
    assert after.report(rounding.NAME).skipped == ()
    errors = rounding_error(graph, after, [torch.randn(*IMAGE, dtype=torch.float64)])
    assert errors.keys() == {"one", "two"}
    assert all(0 < error < 1e-6 for error in errors.values())


def test_values_beyond_float32_are_listed(graph):
    _fill(graph, "a.weight", 1e39, 1e-40, -1e-39, 1e-60, 0.0)
    _fill(graph, "b.bias", 1e-44)
    found = [(skip.module, skip.reason) for skip in round_weights(graph).report(rounding.NAME).skipped]
    assert found == [
        ("a.weight", rounding.OVERFLOW.format(count=1, total=144)),
        ("a.weight", rounding.SUBNORMAL.format(count=2, total=144)),
        ("a.weight", rounding.ZERO.format(count=1, total=144)),
        ("b.bias", rounding.SUBNORMAL.format(count=1, total=2)),
    ]


def test_an_overflow_is_an_infinite_error(graph):
    _fill(graph, "a.weight", 1e39)
    errors = rounding_error(graph, round_weights(graph), [torch.ones(*IMAGE)])
    assert math.isinf(errors["one"])
    assert math.isfinite(errors["two"])


def test_coarser_rounding_is_refused(graph, monkeypatch):
    def careless(exact: Graph, dtype: torch.dtype) -> Graph:
        copied = exact.copy()
        for parameter in copied.module.parameters():
            parameter.data = parameter.data.bfloat16().to(dtype)
        return replace(copied)

    monkeypatch.setattr(rounding, "cast_graph", careless)
    with pytest.raises(VerificationError, match="moved further"):
        round_weights(graph)
