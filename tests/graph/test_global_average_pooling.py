from __future__ import annotations

import torch
from graph_cases import BOUND, Calls, captured, operations, relative_l2
from torch import nn

from deploykit.graph.passes import global_average_pooling as rule
from deploykit.graph.passes.global_average_pooling import global_average_pooling, global_average_pooling_by_window

SHAPE = (2, 6, 5, 7)


def test_a_pooling_to_one_pixel_is_a_mean_of_means():
    before = captured(nn.Sequential(nn.Conv2d(6, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(6, 6, 1)), *SHAPE)
    text = str(before.module.graph)
    after = global_average_pooling(before)
    assert operations(after) == {"conv2d": 2, "mean": 2}
    assert [fired.modules for fired in after.report(rule.NAME).fired] == [("1",)]
    assert relative_l2(before, after, *SHAPE) <= BOUND
    assert str(before.module.graph) == text
    assert global_average_pooling(after).reports[-1].fired == ()
    # The twin: a mean over one axis less is seen.
    rows, mean = (node for node in after.module.graph.nodes if node.target is torch.ops.aten.mean.dim)
    mean.replace_all_uses_with(rows)
    after.module.recompile()
    x = torch.randn(*SHAPE, dtype=torch.float64)
    assert after.run(x)[0].shape != before.run(x)[0].shape


def test_a_pooling_to_more_pixels_or_of_the_maximum_stays():
    network = Calls(
        lambda m, x: (m.wide(x), m.most(x)), wide=nn.AdaptiveAvgPool2d((1, 7)), most=nn.AdaptiveMaxPool2d(1)
    )
    after = global_average_pooling(captured(network, *SHAPE, outputs=("wide", "most")))
    assert operations(after).keys() & {"adaptive_avg_pool2d", "mean"} == {"adaptive_avg_pool2d"}
    assert after.report(rule.NAME).fired == ()


def test_a_mean_of_the_image_is_a_pooling_by_one_window():
    network = Calls(lambda m, x: m.pool(x) + x.mean((2, -1), keepdim=True), pool=nn.AdaptiveAvgPool2d(1))
    before = captured(network, *SHAPE)
    after = global_average_pooling_by_window(before)
    assert operations(after) == {"avg_pool2d": 2, "add": 1}
    assert len(after.report(rule.BY_WINDOW).fired) == 2
    assert relative_l2(before, after, *SHAPE) <= BOUND
    assert global_average_pooling_by_window(after).reports[-1].fired == ()
    # The twin: a window of one row less is seen.
    for node in after.module.graph.find_nodes(op="call_function", target=torch.ops.aten.avg_pool2d.default):
        node.update_arg(1, [SHAPE[2] - 1, SHAPE[3]])
        node.update_arg(2, [SHAPE[2], 1])
    after.module.recompile()
    assert relative_l2(before, after, *SHAPE) > 1e-2


def test_other_means_stay():
    network = Calls(lambda m, x: (x.mean((2, 3)), x.mean(3, keepdim=True), x.mean((1, 2), keepdim=True)))
    after = global_average_pooling_by_window(captured(network, *SHAPE, outputs=("a", "b", "c")))
    assert operations(after) == {"mean": 3}
    assert after.report(rule.BY_WINDOW).fired == ()
