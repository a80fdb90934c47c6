from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2, skip_reasons
from optimize_cases import noise, same, wrong_records
from torch import Tensor, nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import absorb_permutations as rule
from deploykit.graph.passes.absorb_permutations import absorb_permutations

IMAGE = (1, 8, 6, 5)
MOVES = {"view", "transpose", "clone", "_unsafe_view", "split", "slice", "cat", "permute"}


def shuffle(x: Tensor, groups: int = 2) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


def _swap(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 1)
    return torch.cat([second, first], 1)


def _residual(m: Calls, x: Tensor) -> Tensor:
    y = shuffle(m.a(x))
    return m.b(y + m.c(y))


def _depthwise_residual(m: Calls, x: Tensor) -> Tensor:
    y = shuffle(m.a(x))
    return m.b(m.depthwise(y) + y)


def _read_as_it_was(m: Calls, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.c(shuffle(y)) + y


def _by_slices(x: Tensor) -> Tensor:
    return torch.cat([x[:, 6:], x[:, :2], x[:, 2:6]], 1)


def _concatenated(m: Calls, x: Tensor) -> Tensor:
    y = shuffle(x)
    return m.wide(torch.cat([y, m.depthwise(y), m.a(x)], 1))


def _half_read(m: Calls, x: Tensor) -> Tensor:
    """ShuffleNet V2: one half goes on as it is."""
    first, second = shuffle(torch.cat([m.halved(x), m.halved(x)], 1)).chunk(2, 1)
    return torch.cat([first, second.exp()], 1)


def _part_read(m: Calls, x: Tensor) -> Tensor:
    """The maker must not give its channels in another order: a part on the way is read as it is."""
    first, second = m.a(x).chunk(2, 1)
    return torch.softmax(torch.cat([second, first], 1), 1) * first.sum((1, 2, 3), keepdim=True)


CASES = {
    "dense convolution": lambda m, x: m.b(shuffle(m.a(x))),
    "swap": lambda m, x: m.b(_swap(m.a(x))),
    "slices": lambda m, x: m.b(_by_slices(m.a(x))),
    "in a row": lambda m, x: m.b(shuffle(shuffle(m.a(x), 4))),
    "channel-wise on the way": lambda m, x: m.b(F.avg_pool2d(F.relu(m.norm(m.slope(m.depthwise(shuffle(m.a(x)))))), 2)),
    "resized": lambda m, x: m.b(F.interpolate(shuffle(m.a(x)), (9, 7), mode="bilinear", align_corners=True)),
    "concatenation": _concatenated,
    "residual of one convolution": _residual,
    "residual of a depthwise one": _depthwise_residual,
    "sum with another value": lambda m, x: m.b(shuffle(m.a(x)) + m.c(x)),
    "sum on the right": lambda m, x: m.b(m.c(x) - shuffle(m.a(x))),
    "constant (C,1,1)": lambda m, x: m.b(shuffle(m.a(x)) * m.factor),
    "constant (1,C,1,1)": lambda m, x: m.b(m.factor[None] + shuffle(m.a(x))),
    "constant (H,W)": lambda m, x: m.b(shuffle(m.a(x)) * m.plane),
    "one factor for all": lambda m, x: m.b(shuffle(m.a(x)) * x.mean((1, 2, 3), keepdim=True)),
    "returned": lambda m, x: shuffle(m.a(x)),
    "made by a residual sum": lambda m, x: shuffle(F.relu(m.norm(m.a(x) + m.c(x)))),
    "within groups": lambda m, x: m.grouped(torch.cat([x[:, 2:4], x[:, :2], x[:, 6:], x[:, 4:6]], 1)),
    "whole groups": lambda m, x: m.b(m.grouped(_swap(x))),
    "before grouped": lambda m, x: shuffle(m.depthwise(m.a(x))),
    "ShuffleNet v1": lambda m, x: m.b(F.relu(x + m.c(m.depthwise(shuffle(F.relu(m.grouped(x))))))),
    "called twice": lambda m, x: m.a(shuffle(m.a(x))),
}
REFUSED = {
    "two readers in both orders": (_read_as_it_was, None),
    "groups taken apart": (lambda m, x: m.grouped(shuffle(x)), "aten.conv2d.default"),
    "an input returned": (lambda m, x: shuffle(x), "an output of the network"),
    "softmax over channels": (lambda m, x: torch.softmax(shuffle(x), 1), "aten.softmax.int"),
    "half of it read": (_half_read, "aten.split.Tensor"),
    "transposed convolution": (lambda m, x: m.up(shuffle(x)), "aten.conv_transpose2d.input"),
    "a part on the way read by itself": (_part_read, "aten.softmax.int"),
}


def _network(forward: object) -> Calls:
    return Calls(
        forward,  # type: ignore[arg-type]
        a=nn.Conv2d(8, 8, 1), b=nn.Conv2d(8, 6, 3, padding=1), c=nn.Conv2d(8, 8, 1, bias=False),
        wide=nn.Conv2d(24, 4, 1), halved=nn.Conv2d(8, 4, 1), depthwise=nn.Conv2d(8, 8, 3, padding=1, groups=8),
        grouped=nn.Conv2d(8, 8, 1, groups=2), up=nn.ConvTranspose2d(8, 8, 2, 2), norm=nn.BatchNorm2d(8),
        slope=nn.PReLU(8), factor=nn.Parameter(torch.empty(8, 1, 1)), plane=nn.Parameter(torch.empty(6, 5)),
    )  # fmt: skip


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**CASES, **{name: forward for name, (forward, _) in REFUSED.items()}}
    networks = {name: _network(forward) for name, forward in forwards.items()}
    return captured_together(networks, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_the_permutation_goes_into_the_weights(name, graphs):
    before = graphs[name]
    after = absorb_permutations(before)
    allowed = {"concatenation": {"cat"}}.get(name, set())
    assert not (operations(after).keys() & MOVES) - allowed
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert after.report(rule.NAME).fired
    assert not wrong_records(before, after, noise(*IMAGE))
    again = absorb_permutations(after)
    assert same(again, after)
    assert not again.reports[-1].fired


@pytest.mark.parametrize("name", REFUSED)
def test_what_needs_the_order_keeps_it_with_the_reason(name, graphs):
    before = graphs[name]
    after = absorb_permutations(before)
    reason = REFUSED[name][1]
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    if reason is not None:
        assert operations(after).keys() & MOVES
        assert any(reason in found for found in skip_reasons(after, rule.NAME))


def test_a_batch_of_two():
    shape = (2, *IMAGE[1:])
    before = captured_together({"two": _network(CASES["dense convolution"])}, *shape)["two"]
    after = absorb_permutations(before)
    assert not operations(after).keys() & MOVES
    assert relative_l2(before, after, *shape) <= BOUND


def test_a_move_across_the_batch_is_no_permutation_of_channels():
    shape = (2, *IMAGE[1:])
    network = _network(lambda m, x: m.b(x.transpose(0, 1).reshape(2, 8, 6, 5)))
    before = captured_together({"mixed": network}, *shape)["mixed"]
    after = absorb_permutations(before)
    assert operations(after)["transpose"] == 1
    assert relative_l2(before, after, *shape) <= BOUND


@pytest.mark.parametrize("name", ["dense convolution", "residual of one convolution", "whole groups", "returned"])
def test_weights_in_the_wrong_order_are_caught(name, graphs, monkeypatch):
    """The twin of the bound: without the inverse, or with one weight left in its order, the outputs differ."""
    monkeypatch.setattr(rule, "_inverse", lambda value, order, axis: value)
    before = graphs[name]
    assert relative_l2(before, absorb_permutations(before), *IMAGE) > 1e-3


def test_the_graph_given_is_left_untouched(graphs):
    before = graphs["residual of one convolution"]
    copy = before.copy()
    absorb_permutations(before)
    assert same(before, copy)
