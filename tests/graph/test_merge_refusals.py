from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import (
    BOUND,
    Calls,
    DiverseBranches,
    captured,
    captured_together,
    conv_bn,
    operations,
    relative_l2,
    skip_reasons,
)
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import linear_branch, linear_step
from deploykit.graph.passes import merge_branches as rule
from deploykit.graph.passes.fold_batch_norm import fold_batch_norm
from deploykit.graph.passes.merge_branches import merge_branches

IMAGE = (1, 8, 8, 8)


def _square(**options: object) -> nn.Conv2d:
    return nn.Conv2d(8, 8, 3, **{"padding": 1, **options})


REFUSED = {
    "depthwise beside dense": (
        Calls(lambda m, x: m.a(x) + m.b(x), a=_square(groups=8), b=nn.Conv2d(8, 8, 1)),
        rule.MORE_WORK.format(merged=9 * 8 * 8 * 64, apart=(9 + 8) * 8 * 64),
    ),
    "cross of two kernels": (
        Calls(
            lambda m, x: m.a(x) + m.b(x),
            a=nn.Conv2d(8, 8, (1, 3), padding=(0, 1)),
            b=nn.Conv2d(8, 8, (3, 1), padding=(1, 0)),
        ),
        rule.MORE_WORK.format(merged=9 * 8 * 8 * 64, apart=6 * 8 * 8 * 64),
    ),
    "two dilations": (
        Calls(lambda m, x: m.a(x) + m.b(x), a=_square(padding=2, dilation=2), b=_square()),
        rule.MORE_WORK.format(merged=25 * 8 * 8 * 64, apart=18 * 8 * 8 * 64),
    ),
    "padding of one branch shifted": (
        Calls(lambda m, x: m.a(x) + m.b(F.pad(x, (2, 0, 2, 0))), a=_square(), b=nn.Conv2d(8, 8, 3)),
        rule.ONE_SIDED,
    ),
    "uneven pooling": (
        Calls(lambda m, x: m.a(x) + m.p(x), a=_square(), p=nn.AvgPool2d(3, 1, 1, count_include_pad=False)),
        linear_step.UNEVEN_POOLING,
    ),
    "pooling beyond the border": (
        Calls(
            lambda m, x: m.a(x) + F.avg_pool2d(x, 3, 2, ceil_mode=True),
            a=_square(stride=2),
        ),
        linear_step.UNEVEN_POOLING,
    ),
    "shift before padding": (
        Calls(lambda m, x: m.b(m.a(x)) + m.c(x), a=conv_bn(8, 8, 1), b=_square(), c=_square()),
        linear_branch.BORDER_SHIFT,
    ),
    "shift before pooling with padding": (
        Calls(lambda m, x: m.p(m.a(x)) + m.c(x), a=nn.Conv2d(8, 8, 1), p=nn.AvgPool2d(3, 1, 1), c=_square()),
        linear_branch.BORDER_SHIFT,
    ),
    "two large kernels": (
        Calls(lambda m, x: m.b(m.a(x)) + m.c(x), a=_square(), b=_square(padding=0), c=nn.Conv2d(8, 8, 3)),
        linear_branch.TWO_KERNELS,
    ),
    "padding after a large kernel": (
        Calls(lambda m, x: m.b(m.a(x)) + x, a=_square(), b=_square()),
        linear_branch.BORDER_AFTER_KERNEL,
    ),
    "computed weight": (
        Calls(lambda m, x: F.conv2d(x, m.a.weight * 2, padding=1) + x, a=_square()),
        linear_step.COMPUTED_WEIGHT,
    ),
    "no convolution": (
        Calls(lambda m, x: m.bn(x) + x, bn=nn.BatchNorm2d(8)),
        rule.NO_CONVOLUTION,
    ),
    "nothing linear": (
        Calls(lambda m, x: F.relu(m.a(x)) + x, a=_square()),
        rule.NO_COMMON_SOURCE,
    ),
    "scaling by a computed tensor": (
        Calls(lambda m, x: m.a(x) * x.mean((2, 3), keepdim=True) + x, a=_square()),
        rule.NO_COMMON_SOURCE,
    ),
    "scaling per pixel": (
        Calls(lambda m, x: m.a(x) * m.s + x, a=_square(), s=nn.Parameter(torch.ones(1, 1, 8, 8))),
        rule.NO_COMMON_SOURCE,
    ),
    "second reader": (
        Calls(lambda m, x: (m.b(y := m.a(x)) + x) * F.relu(y), a=nn.Conv2d(8, 8, 1), b=_square()),
        rule.NO_COMMON_SOURCE,
    ),
}


@pytest.fixture(scope="module")
def refused() -> dict[str, Graph]:
    graphs = captured_together({name: network for name, (network, _) in REFUSED.items()}, *IMAGE)
    return {name: fold_batch_norm(graph) for name, graph in graphs.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_exact_stays_with_its_reason(name, refused):
    before, reason = refused[name], REFUSED[name][1]
    after = merge_branches(before)
    assert after.report(rule.NAME).fired == ()
    assert skip_reasons(after, rule.NAME) == [reason]
    assert operations(after) == operations(before)
    assert relative_l2(before, after, *IMAGE) == 0


def test_a_branch_of_another_stride_stays():
    network = Calls(
        lambda m, x: m.a(x) + m.b(x) + m.c(x),
        a=_square(padding=2, dilation=2),
        b=nn.Conv2d(8, 8, 1),
        c=nn.Conv2d(8, 8, 4, stride=2, padding=5),
    )
    before = captured(network, *IMAGE)
    after = merge_branches(before)
    assert operations(after) == {"conv2d": 2, "add": 1}
    assert skip_reasons(after, rule.NAME) == [
        rule.OTHER_STRIDE.format(stride=(1, 1), other=(2, 2)),
        rule.OTHER_STRIDE.format(stride=(2, 2), other=(1, 1)),
    ]
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_a_border_of_another_value_keeps_its_branch_apart():
    before = fold_batch_norm(captured(DiverseBranches(8, wrong=1.001), *IMAGE))
    after = merge_branches(before)
    assert skip_reasons(after, rule.NAME) == [linear_branch.BORDER_VALUE]
    (fired,) = after.report(rule.NAME).fired
    assert not any(path.startswith("expand") for path in fired.modules)
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_a_border_only_partly_written_is_not_a_frame():
    def forward(m, x):
        y = F.pad(m.a(x), (1, 1, 1, 1))
        y[:, :, 0:1, :] = m.a.bias.view(1, -1, 1, 1)
        y[:, :, -1:, :] = m.a.bias.view(1, -1, 1, 1)
        return m.b(y) + m.c(x)

    network = Calls(forward, a=nn.Conv2d(8, 8, 1), b=_square(padding=0), c=_square())
    before = captured(network, *IMAGE)
    after = merge_branches(before)
    assert skip_reasons(after, rule.NAME) == [rule.NO_COMMON_SOURCE]
    assert operations(after) == operations(before)


def test_moving_a_shift_through_zero_padding_would_be_wrong(monkeypatch, refused):
    before = refused["shift before padding"]
    window = linear_branch.Window
    unpadded = linear_branch._then_window

    def careless(branch, operation, node):
        fields = {name: getattr(operation, name) for name in window.__dataclass_fields__}
        return unpadded(branch, window(**{**fields, "pads": False}), node)

    monkeypatch.setattr(linear_branch, "_then_window", careless)
    after = merge_branches(before)
    assert operations(after) == {"conv2d": 1}
    x = torch.randn(*IMAGE, dtype=torch.float64)
    difference = (after.run(x)[0] - before.run(x)[0]).abs()
    assert float(difference[..., 1:-1, 1:-1].max()) < 1e-10
    assert float(difference.max()) > 1e-2
