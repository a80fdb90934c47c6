from __future__ import annotations

import torch
from graph_cases import BOUND, Calls, captured, operations, relative_l2
from torch import nn

from deploykit.graph.passes import global_average_pooling as rule
from deploykit.graph.passes.global_average_pooling import global_average_pooling

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
