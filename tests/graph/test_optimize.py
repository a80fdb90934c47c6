from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from graph_cases import BOUND, Calls, captured, operations, randomized
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optimize_cases import noise, relative_error, same, work, wrong_records
from random_networks import Network, Plan, plan
from torch import nn

from deploykit import load_recipe
from deploykit.graph.capture import capture
from deploykit.graph.graph import Graph
from deploykit.graph.optimize import PASSES, optimize
from deploykit.graph.passes import absorb_permutations, move_affine
from deploykit.graph.simplify import simplify
from deploykit.network import load_network
from deploykit.verify.reparam import deploy_graph, training_graph

plans = st.builds(plan, st.randoms(use_true_random=False))


def _captured(drawn: Plan) -> Graph:
    network = Network(drawn)
    randomized(network)
    network.kill()
    return capture(network, [torch.zeros(*drawn.shape)], (), [f"out{i}" for i in range(drawn.outputs)])


def _holds(captured: Graph, *shape: int, simple: Graph | None = None) -> Graph:
    """Check everything that optimization promises of ``captured``, and return what it made of it."""
    simple = simple or simplify(captured, keep_outputs=None)
    after = optimize(simple)
    x = noise(*shape)
    assert relative_error(captured, after, x) <= BOUND
    assert wrong_records(captured, after, x) == []
    again = optimize(after)
    assert [report.fired for report in again.reports[-len(PASSES) :]] == [()] * len(PASSES)
    assert same(again, after)
    assert same(optimize(simple), after)
    # SINet's softmax over two classes is a difference now, which counts as a 1x1 convolution at 56x56.
    difference = 2 * 56 * 56 * len(after.report("two_class_softmax").fired)
    assert work(after) <= work(simple) + difference
    return after


@settings(max_examples=3, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(plans)
def test_random_networks(drawn):
    _holds(_captured(drawn), *drawn.shape)


@pytest.mark.full
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(plans)
def test_many_random_networks(drawn):
    _holds(_captured(drawn), *drawn.shape)


def _real(name: str) -> Graph:
    network = load_network(load_recipe(name))
    captured = training_graph(network)
    shape = captured.inputs[0].shape
    return _holds(captured, *shape, simple=deploy_graph(captured, network.recipe))


def test_sinet_loses_its_shuffles():
    after = _real("sinet")
    absorbed = after.report(absorb_permutations.NAME)
    assert len(absorbed.fired) == 10
    assert not absorbed.skipped
    left = operations(after)
    assert not left.keys() & {"transpose", "clone", "_unsafe_view", "permute", "expand"}
    # Its squeeze-and-excitation works on images of one pixel.
    assert not left.keys() & {"view", "linear", "unsqueeze"}


@pytest.mark.full
@pytest.mark.parametrize("name", ["rcrnet", "portraitnet", "elb", "mobilenetv3-sappm"])
def test_the_other_networks(name):
    _real(name)


def test_a_pass_that_is_not_chosen_does_not_run():
    network = Calls(
        lambda m, x: m.conv(x.chunk(2, 1)[1].add(m.norm(x)[:, :2])), conv=nn.Conv2d(2, 2, 1), norm=nn.BatchNorm2d(4)
    )
    graph = simplify(captured(network, 1, 4, 6, 5), keep_outputs=None)
    after = optimize(graph, [move_affine.NAME])
    assert [report.name for report in after.reports[len(graph.reports) :]] == [move_affine.NAME]


def test_a_wrong_rewrite_breaks_every_check(monkeypatch):
    """The twin: without the shift, the outputs and the records of the values are wrong."""
    network = Calls(
        lambda m, x: m.conv(nn.functional.interpolate(m.norm(x), scale_factor=2)),
        conv=nn.Conv2d(4, 4, 1),
        norm=nn.BatchNorm2d(4),
    )
    graph = captured(network, 1, 4, 6, 5)
    simple = simplify(graph, keep_outputs=None)
    x = noise(1, 4, 6, 5)
    assert relative_error(graph, optimize(simple), x) <= BOUND
    read = move_affine.read_step

    def without_shift(module, node):
        found = read(module, node)
        if found is not None and isinstance(found.operation, move_affine.Affine):
            return replace(found, operation=replace(found.operation, shift=0 * found.operation.shift))
        return found

    monkeypatch.setattr(move_affine, "read_step", without_shift)
    damaged = optimize(simple)
    assert relative_error(graph, damaged, x) > 1e-3
    assert wrong_records(graph, damaged, x)
