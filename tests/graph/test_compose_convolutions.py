"""Two plain convolutions in a row; those with a transposed one are in test_compose_transposed.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2, skip_reasons
from optimize_cases import noise, same, work, wrong_records
from torch import Tensor, nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import compose_convolutions as rule
from deploykit.graph.passes.compose_convolutions import compose_convolutions

IMAGE = (1, 4, 9, 7)


def _read_twice(m: Calls, x: Tensor) -> Tensor:
    y = m.point(x)
    return m.valid(y) + y.sum((1, 2, 3), keepdim=True)


CASES = {
    "1x1 after a kernel": lambda m, x: m.point(m.padded(x)),
    "1x1 before one that does not pad": lambda m, x: m.valid(m.point(x)),
    "1x1 without bias before one that pads": lambda m, x: m.padded(m.plain(x)),
    "two 1x1": lambda m, x: m.point(m.plain(x)),
    "three in a row": lambda m, x: m.point(m.plain(m.point(x))),
    "strides multiply": lambda m, x: m.strided_point(m.strided(x)),
    "stride before padding": lambda m, x: m.strided(m.strided_plain(x)),
    "dilated": lambda m, x: m.dilated(m.plain(x)),
    "strided before dilated": lambda m, x: m.dilated(m.strided_plain(x)),
    "padded 1x1 first": lambda m, x: m.valid(m.padded_point(x)),
    "depthwise 1x1 after": lambda m, x: m.scales(m.padded(x)),
    "depthwise 1x1 before": lambda m, x: m.valid(m.scales(x)),
    "groups": lambda m, x: m.grouped(m.grouped(x)),
    "padding twice, without bias": lambda m, x: m.padded(m.padded_plain(x)),
    "shared weights": lambda m, x: m.point(m.point(x)),
}
REFUSED = {
    "bias before padding": (lambda m, x: m.padded(m.point(x)), rule.BORDER),
    "padding after a kernel": (lambda m, x: m.padded_point(m.valid(x)), rule.BORDER),
    "another reader": (_read_twice, rule.OTHER_READER),
    "more work": (lambda m, x: m.expand(m.deep(x)), "one convolution would take"),
    "two kernels": (lambda m, x: m.valid(m.valid(x)), None),
    "activation between": (lambda m, x: m.point(F.relu(m.point(x))), None),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**CASES, **{name: forward for name, (forward, _) in REFUSED.items()}}
    networks = {
        name: Calls(
            forward, point=nn.Conv2d(4, 4, 1), plain=nn.Conv2d(4, 4, 1, bias=False),
            strided_point=nn.Conv2d(4, 4, 1, 2), strided_plain=nn.Conv2d(4, 4, 1, 2, bias=False),
            padded_point=nn.Conv2d(4, 4, 1, padding=1), padded_plain=nn.Conv2d(4, 4, 1, padding=1, bias=False),
            valid=nn.Conv2d(4, 4, 3), padded=nn.Conv2d(4, 4, 3, padding=1), strided=nn.Conv2d(4, 4, 3, 2, 1),
            dilated=nn.Conv2d(4, 4, 3, padding=2, dilation=2), grouped=nn.Conv2d(4, 4, 1, groups=2),
            scales=nn.Conv2d(4, 4, 1, groups=4), deep=nn.Conv2d(4, 4, 3, padding=1, groups=4),
            expand=nn.Conv2d(4, 16, 1),
        )
        for name, forward in forwards.items()
    }  # fmt: skip
    return captured_together(networks, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_the_two_become_one(name, graphs):
    before = graphs[name]
    after = compose_convolutions(before)
    assert operations(after) == {"conv2d": 1}
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    assert work(after) <= work(before)
    assert same(compose_convolutions(after), after)


@pytest.mark.parametrize("name", REFUSED)
def test_other_pairs_stay_with_the_reason(name, graphs):
    before = graphs[name]
    after = compose_convolutions(before)
    reason = REFUSED[name][1]
    assert operations(after) == operations(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert reason is None or any(reason in found for found in skip_reasons(after, rule.NAME))


def test_the_border_would_be_wrong(graphs, monkeypatch):
    """The twin of the refusal: padding is zero where the first would have given its bias."""
    monkeypatch.setattr(rule, "_against", lambda first, second, one, other: None)
    before = graphs["bias before padding"]
    after = compose_convolutions(before)
    (truth,), (value,) = before.run(noise(*IMAGE)), after.run(noise(*IMAGE))
    assert truth.shape == value.shape
    assert float((truth - value).norm() / truth.norm()) > 1e-3


def test_a_lost_bias_is_caught(graphs, monkeypatch):
    """The twin of the bound: without the bias of the first, the result differs."""
    compose = rule.compose
    without = lambda one, other: compose(replace(one, bias=torch.zeros_like(one.bias)), other)  # noqa: E731
    monkeypatch.setattr(rule, "compose", without)
    before = graphs["1x1 before one that does not pad"]
    assert relative_l2(before, compose_convolutions(before), *IMAGE) > 1e-3
