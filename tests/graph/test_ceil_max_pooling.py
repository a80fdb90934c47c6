from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured, captured_together, operations, relative_l2, skip_reasons

from deploykit.graph.graph import Graph
from deploykit.graph.passes import ceil_max_pooling as rule
from deploykit.graph.passes.ceil_max_pooling import ceil_max_pooling

IMAGE = (1, 3, 11, 14)
# Kernel, stride, padding: windows that hang over in one axis, in both, in none, and one that PyTorch drops.
WINDOWS = [
    (2, 2, 0),
    (2, 3, 1),
    (3, 1, 1),
    (3, 2, 0),
    (3, 2, 1),
    (3, 3, 0),
    (3, 3, 1),
    (5, 2, 2),
    (5, 3, 1),
    ((3, 2), (2, 3), (1, 0)),
    (3, (2, 3), 1),
    (4, None, 2),
]


def _pool(window):
    kernel, stride, padding = window
    return lambda m, x: F.max_pool2d(x, kernel, stride, padding, ceil_mode=True)


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    return captured_together({str(window): Calls(_pool(window)) for window in WINDOWS}, *IMAGE)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_rounding_down_over_a_repeated_border_is_exact(graphs, window):
    before = graphs[str(window)]
    after = ceil_max_pooling(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    (pooling,) = [node for node in after.module.graph.nodes if "max_pool2d" in str(node.target)]
    assert len(pooling.args) == 4, "it no longer rounds up"
    assert len(after.report(rule.NAME).fired) == 1
    again = ceil_max_pooling(after)
    assert operations(again) == operations(after)
    assert not again.reports[-1].fired


def test_only_what_hangs_over_is_repeated(graphs):
    assert operations(ceil_max_pooling(graphs[str((3, 2, 0))])) == {"slice": 1, "cat": 1, "max_pool2d": 1}
    assert operations(ceil_max_pooling(graphs[str((5, 3, 1))])) == {"slice": 2, "cat": 2, "max_pool2d": 1}
    assert operations(ceil_max_pooling(graphs[str((3, 1, 1))])) == {"max_pool2d": 1}


def test_recorded_shapes_are_those_that_are_computed(graphs):
    after = ceil_max_pooling(graphs[str((5, 3, 1))])
    values: dict[str, torch.Tensor] = {}

    class Recording(torch.fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    Recording(after.module).run(torch.randn(*IMAGE, dtype=torch.float64))
    calls = [node for node in after.module.graph.nodes if node.op == "call_function"]
    assert [node.meta["val"].shape for node in calls] == [values[node.name].shape for node in calls]


def test_other_poolings_stay_as_they_are():
    kept = Calls(lambda m, x: (F.max_pool2d(x, 3, 2), F.avg_pool2d(x, 3, 2, ceil_mode=True)))
    before = captured(kept, *IMAGE, outputs=("down", "mean"))
    text = str(before.module.graph)
    after = ceil_max_pooling(before)
    assert str(after.module.graph) == text
    assert (after.report(rule.NAME).fired, after.report(rule.NAME).skipped) == ((), ())


def test_taps_with_gaps_are_left_alone_with_the_reason():
    before = captured(Calls(lambda m, x: F.max_pool2d(x, 3, 2, 1, dilation=2, ceil_mode=True)), *IMAGE)
    after = ceil_max_pooling(before)
    assert skip_reasons(after, rule.NAME) == [rule.DILATED]
    assert relative_l2(before, after, *IMAGE) == 0


def test_the_graph_given_is_left_untouched(graphs):
    before = graphs[str((3, 2, 0))]
    text = str(before.module.graph)
    ceil_max_pooling(before)
    assert str(before.module.graph) == text
    assert before.reports == ()


def test_zeros_in_place_of_the_last_value_would_be_wrong(graphs):
    """The twin: a border of zeros beats every negative value."""
    x = -torch.rand(*IMAGE, dtype=torch.float64)
    (truth,) = ceil_max_pooling(graphs[str((2, 2, 0))]).run(x)
    assert torch.equal(truth, F.max_pool2d(x, 2, 2, ceil_mode=True))
    zeros = F.max_pool2d(F.pad(x, [0, 0, 0, 1]), 2, 2)
    assert zeros.shape == truth.shape
    assert not torch.allclose(zeros, truth)
