from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, randomized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimize_cases import noise, relative_error, values_of, wrong_records
from random_networks import Network, Plan, plan
from torch import Tensor, nn

from deploykit.graph.capture import capture
from deploykit.graph.graph import Graph
from deploykit.graph.optimize import optimize
from deploykit.graph.passes import equalize_channels as rule
from deploykit.graph.passes.equalize_channels import equalize_channels
from deploykit.graph.simplify import simplify

plans = st.builds(plan, st.randoms(use_true_random=False))
IMAGE = (1, 4, 8, 6)


def _largest(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    found = {}
    for node, value in values_of(graph, x).items():
        if isinstance(value, Tensor) and value.dim() in (2, 4) and node.op in ("call_function", "placeholder"):
            found[node.name] = value.abs().amax([axis for axis in range(value.dim()) if axis != 1])
    return found


def _spread(graph: Graph, x: Tensor, name: str) -> float:
    largest = _largest(graph, x)[name]
    return float(largest.max() / largest.min())


def _captured(network: Calls) -> Graph:
    """Return ``network`` with random statistics, its first layers giving channels of very different ranges."""
    randomized(network)
    for name in ("a", "other"):
        conv = getattr(network, name, None)
        if conv is not None:
            with torch.no_grad():
                conv.weight.mul_(torch.logspace(-2, 1, conv.out_channels)[:, None, None, None])
                conv.bias.mul_(torch.logspace(-2, 1, conv.out_channels))
    return capture(network, [torch.zeros(*IMAGE)], (), [f"out{i}" for i in range(len(network(torch.zeros(*IMAGE))))])


def _gate(m: Calls, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.b(y * torch.sigmoid(m.gate(F.adaptive_avg_pool2d(y, 1))))


def _dense(m: Calls, x: Tensor) -> Tensor:
    y = m.a(x)
    vector = m.second(F.prelu(m.first(y.mean((2, 3))), m.slopes))
    return m.b(y * vector[:, :, None, None])


def _returned(m: Calls, x: Tensor) -> tuple[Tensor, Tensor]:
    y = m.a(x)
    return m.b(y), y


CASES = {
    "relu": lambda m, x: m.b(m.a(x).relu()),
    "prelu": lambda m, x: m.b(F.prelu(m.a(x), m.slopes)),
    "depthwise": lambda m, x: m.b(m.depthwise(m.a(x)).relu()),
    "transposed": lambda m, x: m.up(m.a(x)),
    "norm": lambda m, x: m.b(m.norm(m.a(x).relu()).relu()),
    "norm before a layer": lambda m, x: m.b(m.norm(m.a(x).relu())),
    "sum": lambda m, x: m.b(m.a(x) + m.other(x)),
    "sum with a constant": lambda m, x: m.b(m.a(x) + m.shift),
    "two parts": lambda m, x: m.wide(torch.cat([m.a(x), m.other(x)], 1)),
    "resized and pooled": lambda m, x: m.b(F.avg_pool2d(F.interpolate(m.a(x), scale_factor=2, mode="bilinear"), 2)),
    "gate": _gate,
    "dense": _dense,
    "another reader is an output": _returned,
    "sigmoid between": lambda m, x: m.b(torch.sigmoid(m.a(x))),
    "clamped between": lambda m, x: m.b(F.relu6(m.a(x))),
}
FIXED = {"another reader is an output", "sigmoid between", "clamped between"}


@pytest.mark.parametrize("name", list(CASES))
def test_channels_are_brought_to_like_ranges_and_nothing_else_changes(name):
    torch.manual_seed(3)
    network = Calls(
        CASES[name],
        a=nn.Conv2d(4, 6, 1), b=nn.Conv2d(6, 3, 3, padding=1), other=nn.Conv2d(4, 6, 1), wide=nn.Conv2d(12, 3, 1),
        depthwise=nn.Conv2d(6, 6, 3, padding=1, groups=6), up=nn.ConvTranspose2d(6, 4, 2, 2, groups=2),
        norm=nn.BatchNorm2d(6), gate=nn.Conv2d(6, 6, 1), first=nn.Linear(6, 6), second=nn.Linear(6, 6),
        slopes=nn.Parameter(torch.rand(6)), shift=nn.Parameter(torch.rand(6, 1, 1)),
    )  # fmt: skip
    graph = _captured(network)
    x = noise(*IMAGE)
    before = _largest(graph, x)
    after = equalize_channels(graph, before)
    assert relative_error(graph, after, x) <= BOUND
    assert wrong_records(graph, after, x) == []
    first = next(node for node in graph.module.graph.nodes if "conv2d" in str(node.target)).name
    spreads = _spread(graph, x, first), _spread(after, x, first)
    if name in FIXED:
        assert spreads[1] == pytest.approx(spreads[0])
    else:
        assert spreads[1] < spreads[0] / 5
    # No value becomes wider than it was.
    wider = [n for n, one in _largest(after, x).items() if n in before and one.max() > 1.001 * before[n].max()]
    assert not wider


@settings(max_examples=3, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plans)
def test_random_networks(drawn):
    _holds(drawn)


@pytest.mark.full
@settings(max_examples=100, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(plans)
def test_many_random_networks(drawn):
    _holds(drawn)


def _holds(drawn: Plan) -> None:
    network = Network(drawn)
    randomized(network)
    network.kill()
    captured = capture(network, [torch.zeros(*drawn.shape)], (), [f"out{i}" for i in range(drawn.outputs)])
    graph = optimize(simplify(captured, keep_outputs=None))
    x = noise(*drawn.shape)
    after = equalize_channels(graph, _largest(graph, x))
    assert relative_error(captured, after, x) <= BOUND
    assert wrong_records(captured, after, x) == []


def test_half_the_strength_is_the_square_root():
    torch.manual_seed(5)
    network = Calls(CASES["relu"], a=nn.Conv2d(4, 6, 1), b=nn.Conv2d(6, 3, 1))
    graph, x = _captured(network), noise(*IMAGE)
    largest = _largest(graph, x)
    whole, half = (_largest(equalize_channels(graph, largest, s), x)["conv2d"] for s in (1.0, 0.5))
    assert (whole / largest["conv2d"]).sqrt() == pytest.approx(half / largest["conv2d"])


def test_a_channel_that_is_always_zero_keeps_its_weights():
    network = Calls(CASES["relu"], a=nn.Conv2d(4, 6, 1), b=nn.Conv2d(6, 3, 1))
    with torch.no_grad():
        network.a.weight[2], network.a.bias[2] = 0, 0
    graph, x = _captured(network), noise(*IMAGE)
    after = equalize_channels(graph, _largest(graph, x))
    assert relative_error(graph, after, x) <= BOUND
    assert all(bool(torch.isfinite(one).all()) for one in after.module.parameters())


def test_a_scale_that_is_not_undone_is_seen(monkeypatch):
    """The negative twin: scaling the rows and not the columns behind them changes what the network gives."""
    monkeypatch.setattr(rule, "scale_inputs", lambda weight, scale, groups: weight)
    network = Calls(CASES["relu"], a=nn.Conv2d(4, 6, 1), b=nn.Conv2d(6, 3, 1))
    graph, x = _captured(network), noise(*IMAGE)
    after = equalize_channels(graph, _largest(graph, x))
    assert relative_error(graph, after, x) > 1e-2
