from __future__ import annotations

import pytest
import torch
from graph_cases import BOUND, Calls, captured, captured_together, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import keepdim_reductions as rule
from deploykit.graph.passes.keepdim_reductions import keepdim_reductions

IMAGE = (1, 4, 6, 5)


def _twice(expanded, y, z):
    return y * expanded + z * expanded.exp()


def _with_itself(expanded):
    return expanded - torch.sigmoid(expanded)


def _and_its_sum(reduced):
    return reduced.unsqueeze(1) * reduced.sum()


def _values_and_indices(values, indices):
    return values.unsqueeze(1) * indices.unsqueeze(1)


CASES = {
    "max": lambda m, x: m.conv(x) * x.max(1)[0].unsqueeze(1).expand(-1, 4, -1, -1),
    "min": lambda m, x: m.conv(x) + x.min(1)[0].unsqueeze(1).expand(1, 4, 6, 5),
    "negative axes": lambda m, x: m.conv(x) - x.max(-3)[0].unsqueeze(-3).expand(-1, 4, -1, -1),
    "mean": lambda m, x: m.conv(x) * x.mean(1).unsqueeze(1),
    "sum": lambda m, x: m.conv(x) * x.sum(2).unsqueeze(2),
    "amin": lambda m, x: m.conv(x) / (9 + x.amin(3).unsqueeze(3)),
    "between": lambda m, x: m.conv(x) * (1 - torch.sigmoid(x.max(1)[0])).unsqueeze(1).expand(-1, 4, -1, -1),
    "after the expand": lambda m, x: m.conv(x) * (1 - x.max(1)[0].unsqueeze(1).expand(-1, 4, -1, -1)).exp(),
    "larger of two": lambda m, x: torch.maximum(m.conv(x), x.amax(1, keepdim=True).expand(-1, 4, -1, -1)),
    "weighted": lambda m, x: torch.sub(m.conv(x), x.max(1)[0].unsqueeze(1).expand(-1, 4, -1, -1), alpha=3),
    "two readers": lambda m, x: _twice(x.max(1)[0].unsqueeze(1).expand(-1, 4, -1, -1), m.conv(x), x),
}
# What stays, and why: operation → reason, None where the pass has nothing to say.
KEPT = {
    "read by a convolution": (
        lambda m, x: m.conv(x.amax(1, keepdim=True).expand(-1, 4, -1, -1)),
        "expand",
        "aten.conv2d.default needs the expanded value",
    ),
    "returned": (lambda m, x: x.amax(1, keepdim=True).expand(-1, 4, -1, -1), "expand", "output needs"),
    "pointwise and then a convolution": (
        lambda m, x: m.conv(1 - x.amax(1, keepdim=True).expand(-1, 4, -1, -1)),
        "expand",
        "aten.conv2d.default needs",
    ),
    "both sides expanded": (
        lambda m, x: x.amax(1, keepdim=True).expand(-1, 4, -1, -1) * x.amin(1, keepdim=True).expand(-1, 4, -1, -1),
        "expand",
        "aten.mul.Tensor needs",
    ),
    "with itself": (
        lambda m, x: _with_itself(x.amax(1, keepdim=True).expand(-1, 4, -1, -1)),
        "expand",
        "aten.sub.Tensor needs",
    ),
    "other axis": (
        lambda m, x: x.max(2)[0].unsqueeze(1),
        "unsqueeze",
        "the axis put back is not the axis that was reduced",
    ),
    "two axes": (lambda m, x: x.mean((1, 2)).unsqueeze(1), "unsqueeze", "the axis put back"),
    "kept already": (lambda m, x: x.amax(1, keepdim=True).unsqueeze(1), "unsqueeze", "the axis put back"),
    "everything reduced": (lambda m, x: x.amax().unsqueeze(0), "unsqueeze", "the axis put back"),
    "second reader": (lambda m, x: _and_its_sum(x.amax(1)), "unsqueeze", None),
    "indices": (lambda m, x: _values_and_indices(*x.max(1)), "max", None),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**CASES, **{name: forward for name, (forward, _, _) in KEPT.items()}}
    return captured_together(
        {name: Calls(forward, conv=nn.Conv2d(4, 4, 1)) for name, forward in forwards.items()}, *IMAGE
    )


@pytest.mark.parametrize("name", CASES)
def test_the_axis_is_kept_and_broadcasting_does_the_rest(name, graphs):
    before = graphs[name]
    after = keepdim_reductions(before)
    left = operations(after)
    assert not left.keys() & {"unsqueeze", "expand", "max", "min"}
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert after.report(rule.NAME).fired
    assert not skip_reasons(after, rule.NAME)


@pytest.mark.parametrize("name", KEPT)
def test_what_does_not_match_exactly_stays(name, graphs):
    _, operation, reason = KEPT[name]
    before = graphs[name]
    after = keepdim_reductions(before)
    assert operations(after)[operation]
    assert relative_l2(before, after, *IMAGE) <= BOUND
    if reason is not None:
        assert any(found.startswith(reason) for found in skip_reasons(after, rule.NAME))


def test_recorded_shapes_are_those_that_are_computed(graphs):
    for name, graph in graphs.items():
        after = keepdim_reductions(graph)
        values: dict[str, torch.Tensor] = {}

        class Recording(torch.fx.Interpreter):
            def run_node(self, n, values=values):
                values[n.name] = super().run_node(n)
                return values[n.name]

        Recording(after.module).run(torch.randn(*IMAGE, dtype=torch.float64))
        for node in after.module.graph.nodes:
            if node.op == "call_function" and isinstance(values[node.name], torch.Tensor):
                assert node.meta["val"].shape == values[node.name].shape, (name, node)


def test_the_graph_given_is_left_untouched(graphs):
    before = graphs["max"]
    text, reports = str(before.module.graph), before.reports
    shapes = [tuple(node.meta["val"].shape) for node in before.module.graph.nodes if node.target == "unsqueeze"]
    keepdim_reductions(before)
    assert str(before.module.graph) == text
    assert before.reports == reports
    assert [tuple(n.meta["val"].shape) for n in before.module.graph.nodes if n.target == "unsqueeze"] == shapes


def test_nothing_to_do_says_so():
    after = keepdim_reductions(captured(nn.Conv2d(4, 4, 1), *IMAGE))
    assert after.report(rule.NAME).fired == ()
    assert after.report(rule.NAME).skipped == ()


def test_the_other_axis_would_be_wrong(graphs):
    """The twin of the refusal: keeping the reduced axis where another one was put back is another tensor."""
    x = torch.randn(*IMAGE, dtype=torch.float64)
    (truth,) = graphs["other axis"].run(x)
    assert truth.shape != x.amax(2, keepdim=True).shape
