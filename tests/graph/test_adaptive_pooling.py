from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured, captured_together, operations, relative_l2
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import adaptive_pooling as rule
from deploykit.graph.passes.adaptive_pooling import adaptive_pooling, windows

IMAGE = (1, 3, 28, 17)
AVERAGE, PRODUCTS = {"conv2d": 1, "avg_pool2d": 1}, {"conv2d": 1, "linear": 2, "transpose": 2}
CASES = {
    "divides": ((14, 17), AVERAGE),
    "divides one axis, spaced alike on the other": ((7, 2), AVERAGE),
    "overlapping windows of one length": ((3, 2), AVERAGE),
    "one row": ((1, 6), PRODUCTS),
    "windows of two lengths": ((6, 6), PRODUCTS),
    "one axis only": ((6, 17), PRODUCTS),
    "the size itself": ((28, 17), AVERAGE),
    "more outputs than inputs": ((30, 40), PRODUCTS),
}


def pooled(size: object) -> nn.Module:
    return Calls(lambda m, x: F.adaptive_avg_pool2d(m.conv(x), size), conv=nn.Conv2d(3, 4, 1))


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    sizes = {name: size for name, (size, _) in CASES.items()} | {"to one value": 1}
    return captured_together({name: pooled(size) for name, size in sizes.items()}, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_adaptive_pooling_is_written_out_exactly(graphs, name):
    _, expected = CASES[name]
    before = graphs[name]
    text = str(before.module.graph)
    after = adaptive_pooling(before)
    assert operations(after) == expected
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert len(after.report(rule.NAME).fired) == 1
    assert str(before.module.graph) == text
    assert adaptive_pooling(after).reports[-1].fired == ()


@pytest.mark.parametrize("size", [*range(1, 14), 28, 64])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_windows_are_those_of_torch(size, count):
    x = torch.randn(size, dtype=torch.float64)
    expected = F.adaptive_avg_pool1d(x[None], count)[0]
    found = torch.stack([x[first:end].mean() for first, end in windows(size, count)])
    assert (found - expected).abs().max() <= 1e-15


@pytest.mark.parametrize("side", [4, 13])
def test_every_grid_of_a_pyramid_at_sizes_that_do_not_divide(side):
    """One network for all of its grids: a size smaller than the largest grid, and an odd one."""
    network = Calls(lambda m, x: tuple(F.adaptive_avg_pool2d(m.conv(x), k) for k in (2, 3, 6)), conv=nn.Conv2d(3, 4, 1))
    shape = (1, 3, side, side)
    before = captured(network, *shape, outputs=("two", "three", "six"))
    after = adaptive_pooling(before)
    assert not operations(after)["adaptive_avg_pool2d"]
    assert relative_l2(before, after, *shape) <= BOUND


def test_pooling_to_one_value_stays(graphs):
    after = adaptive_pooling(graphs["to one value"])
    assert operations(after) == {"conv2d": 1, "adaptive_avg_pool2d": 1}
    assert after.report(rule.NAME).fired == after.report(rule.NAME).skipped == ()


def test_a_window_that_begins_one_later_is_seen(graphs):
    after = adaptive_pooling(graphs["windows of two lengths"])
    rows = next(value for name, value in after.module.named_parameters() if name.endswith("rows_averages"))
    rows.data[1] = rows.data[1].roll(1)
    assert relative_l2(graphs["windows of two lengths"], after, *IMAGE) > 1e-3


def test_recorded_shapes_and_origins(graphs):
    after = adaptive_pooling(graphs["windows of two lengths"])
    shapes = [tuple(n.meta["val"].shape) for n in after.module.graph.nodes if n.target == torch.ops.aten.linear.default]
    assert shapes == [(1, 4, 28, 6), (1, 4, 6, 6)]
    assert all(n.meta.get("nn_module_stack") for n in after.module.graph.nodes if n.op == "call_function")
