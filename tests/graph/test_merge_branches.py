from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import (
    BOUND,
    NEUTRAL,
    ACNet,
    Calls,
    DiverseBranches,
    MobileOne,
    RCRBranches,
    RepVGG,
    captured,
    captured_together,
    conv_bn,
    operations,
    relative_l2,
    without,
)
from torch import nn

from deploykit.graph.graph import Graph, aten, calls, module_path
from deploykit.graph.passes import merge_branches as rule
from deploykit.graph.passes.merge_branches import merge_branches
from deploykit.graph.simplify import simplify

IMAGE = (2, 8, 9, 11)


def _pool(**options: object) -> nn.AvgPool2d:
    return nn.AvgPool2d(3, 1, 1, **options)


BLOCKS = {
    "RepVGG": RepVGG(8),
    "RepVGG, stride 2": RepVGG(8, stride=2),
    "RepVGG, grouped": RepVGG(8, groups=4),
    "MobileOne, depthwise": MobileOne(8),
    "MobileOne, dense": MobileOne(8, copies=4, depthwise=False),
    "ACNet": ACNet(8),
    "RCR": RCRBranches(8),
    "DBB": DiverseBranches(8),
    "residual": Calls(lambda m, x: x + m.conv(x), conv=nn.Conv2d(8, 8, 3, padding=1)),
    "residual, grouped": Calls(lambda m, x: m.conv(x) + x, conv=nn.Conv2d(8, 8, 3, padding=1, groups=2)),
    "negative residual": Calls(
        lambda m, x: torch.sub(m.conv(x), x, alpha=0.5) - (-x), conv=nn.Conv2d(8, 8, 3, padding=1)
    ),
    "twice the same value": Calls(lambda m, x: m.conv(x) + x + x, conv=nn.Conv2d(8, 8, 3, padding=1)),
    "dilated": Calls(
        lambda m, x: m.a(x) + m.b(x) + x, a=nn.Conv2d(8, 8, 3, padding=2, dilation=2), b=nn.Conv2d(8, 8, 1)
    ),
    "same padding, even kernel": Calls(
        lambda m, x: m.a(x) + m.b(x), a=nn.Conv2d(8, 8, (3, 5), padding="same"), b=nn.Conv2d(8, 8, 3, padding=1)
    ),
    "unpadded": Calls(lambda m, x: m.a(x) + m.b(x), a=nn.Conv2d(8, 8, 3), b=nn.Conv2d(8, 8, 3)),
    "pooling": Calls(lambda m, x: m.a(x) + m.p(x), a=nn.Conv2d(8, 8, 3, padding=1), p=_pool()),
    "pooling with a divisor": Calls(
        lambda m, x: m.a(x) + m.p(x), a=nn.Conv2d(8, 8, 3, padding=1), p=_pool(divisor_override=4)
    ),
    "strided pooling": Calls(
        lambda m, x: m.a(x) + F.avg_pool2d(x, 3, 2), a=nn.Conv2d(8, 8, 3, stride=2), p=nn.Identity()
    ),
    "scaled": Calls(
        lambda m, x: (m.a(x) * 2 - m.s * x) / 3 + m.b(x) * m.s.view(1, -1, 1, 1) + (0.5 + x),
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 1),
        s=nn.Parameter(torch.ones(8, 1, 1)),
    ),
    "constant first": Calls(
        lambda m, x: (m.s - m.a(x)) + (1 - m.b(x)),
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 1),
        s=nn.Parameter(torch.ones(8, 1, 1)),
    ),
    "k x k then 1x1": Calls(
        lambda m, x: m.c(m.b(m.a(x))) + m.d(x),
        a=nn.Conv2d(8, 4, 3, padding=1),
        b=nn.BatchNorm2d(4),
        c=nn.Conv2d(4, 8, 1),
        d=nn.Conv2d(8, 8, 3, padding=1),
    ),
    "strided 1x1 then k x k": Calls(
        lambda m, x: m.b(m.a(x)) + m.c(x),
        a=nn.Conv2d(8, 8, 1, stride=2, bias=False),
        b=nn.Conv2d(8, 8, 3, padding=1),
        c=nn.Conv2d(8, 8, 3, stride=2, padding=2, dilation=2),
    ),
    "1x1 then k x k, zero shift": Calls(
        lambda m, x: m.b(m.a(x)) + m.c(x),
        a=nn.Conv2d(8, 8, 1, bias=False),
        b=nn.Conv2d(8, 8, 3, padding=1),
        c=nn.Conv2d(8, 8, 3, padding=1),
    ),
    "1x1 then k x k, unpadded": Calls(
        lambda m, x: m.b(m.a(x)) + m.c(x), a=conv_bn(8, 8, 1), b=nn.Conv2d(8, 8, 3), c=nn.Conv2d(8, 8, 3)
    ),
    "padding apart": Calls(
        lambda m, x: m.b(F.pad(x, (1, 1, 1, 1))) + m.c(x), b=nn.Conv2d(8, 8, 3), c=nn.Conv2d(8, 8, 3, padding=1)
    ),
    "shared weight": Calls(lambda m, x: m.a(x) + m.b(m.a(x)) + x, a=nn.Conv2d(8, 8, 3, padding=1), b=nn.BatchNorm2d(8)),
    "merged branch of a sum": Calls(
        lambda m, x: 0.5 * (m.a(x) + m.b(x)) + m.c(x),
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 1),
        c=nn.Conv2d(8, 8, 3, padding=1),
    ),
    "BatchNorm on the sum": Calls(lambda m, x: m.bn(m.a(x) + x), a=nn.Conv2d(8, 8, 3, padding=1), bn=nn.BatchNorm2d(8)),
}


@pytest.fixture(scope="module")
def blocks() -> dict[str, Graph]:
    return captured_together(BLOCKS, *IMAGE)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_sum_of_branches_becomes_one_convolution(name, blocks):
    before = blocks[name]
    after = simplify(before, keep_outputs=None)
    left = operations(after)
    left.pop("relu", None)
    assert left == {"conv2d": 1}
    assert relative_l2(before, after, *IMAGE) <= BOUND


@pytest.mark.parametrize("name", ["RepVGG", "DBB"])
def test_a_branch_without_one_statistic_is_noticed(name, blocks):
    whole = blocks[name]
    norms = [module_path(node) for node in calls(whole.module.graph, aten.batch_norm.default)]
    assert len(norms) == {"RepVGG": 3, "DBB": 6}[name]
    for path in norms:
        for statistic in NEUTRAL:
            after = simplify(without(whole, path, statistic), keep_outputs=None)
            assert operations(after)["conv2d"] == 1
            assert relative_l2(whole, after, *IMAGE) > 1e6 * BOUND


def test_a_misplaced_kernel_is_noticed(monkeypatch, blocks):
    before = blocks["RCR"]
    placed = rule.place_kernel
    monkeypatch.setattr(
        rule, "place_kernel", lambda kernel, size, offset, step: placed(kernel, size, (0, *offset[1:]), step)
    )
    assert relative_l2(before, simplify(before, keep_outputs=None), *IMAGE) > 1e-3


def test_other_terms_stay_in_the_sum():
    network = Calls(
        lambda m, x: F.relu(x) - m.a(x) + m.b(x) - torch.sigmoid(x),
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 1),
    )
    before = captured(network, *IMAGE)
    after = merge_branches(before)
    assert operations(after) == {"relu": 1, "sigmoid": 1, "conv2d": 1, "add": 1, "sub": 1}
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_the_largest_exact_subset_merges():
    network = Calls(
        lambda m, x: m.a(x) + m.dense(x) + m.b(x) + x,
        a=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        b=nn.Conv2d(8, 8, 1, groups=8),
        dense=nn.Conv2d(8, 8, 1),
    )
    before = captured(network, *IMAGE)
    after = merge_branches(before)
    assert operations(after) == {"conv2d": 2, "add": 1}
    (fired,) = after.report(rule.NAME).fired
    assert fired.modules == ("a", "b")
    (skipped,) = after.report(rule.NAME).skipped
    pixels = 8 * 9 * 11
    assert skipped.reason == rule.MORE_WORK.format(merged=9 * 8 * pixels, apart=(9 + 8) * pixels)
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_two_groups_of_one_sum_merge_apart():
    network = Calls(
        lambda m, x: m.a(x) + m.b(x) + m.c(y := F.relu(x)) + y,
        a=nn.Conv2d(8, 8, 3, padding=1),
        b=nn.Conv2d(8, 8, 1),
        c=nn.Conv2d(8, 8, 3, padding=1),
    )
    before = captured(network, *IMAGE)
    after = merge_branches(before)
    assert operations(after) == {"conv2d": 2, "relu": 1, "add": 1}
    assert len(after.report(rule.NAME).fired) == 2
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_a_merged_convolution_keeps_its_origin():
    before = captured(nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), RCRBranches(8)), *IMAGE)
    after = simplify(before, keep_outputs=None)
    merged = list(calls(after.module.graph, aten.conv2d.default))[-1]
    sources = ["2.conv3.0", "2.conv3.1", "2.conv1.0", "2.conv1.1"]
    assert module_path(merged) == "2.conv3.0"
    assert merged.meta["custom"]["deploykit"] == {"modules": sources, "stands_for": "2", "value": "add_1"}
    assert {name for name, _ in after.module.named_parameters()} == {
        "0.weight",
        "0.bias",
        "2.conv3.0.weight",
        "2.conv3.0.bias",
    }
    assert [fired.modules for fired in after.report(rule.NAME).fired] == [tuple(sources)]
