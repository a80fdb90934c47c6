"""Costs of captured graphs against counts made by hand, in every convention."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import Calls, captured, conv_bn
from torch import nn

from deploykit.graph.conventions import (
    CONVENTIONS,
    Kind,
    Operation,
    count,
    einsum_inner,
    not_counted,
    total,
    unknown,
)
from deploykit.graph.cost import graph_cost, peak_memory
from deploykit.graph.operations import graph_operations
from deploykit.graph.simplify import simplify
from deploykit.vocab import Convention

MACS, CONV, PORTRAITNET, MMENGINE = Convention
SHAPE = (1, 4, 6, 8)

# Of an image (1, 4, 6, 8), 192 values at 48 positions: network, and what it counts in each of the conventions.
BY_HAND = {
    "convolution": (nn.Conv2d(4, 6, 3, padding=1, bias=False), [6 * 4 * 9 * 48] * 4),
    # The bias adds once for each of 6 x 48 values, which only PortraitNet counts.
    "bias": (nn.Conv2d(4, 6, 1), [24 * 48, 24 * 48, 24 * 48 + 6 * 48, 24 * 48]),
    "groups": (nn.Conv2d(4, 8, 3, padding=1, groups=2, bias=False), [8 * 2 * 9 * 48] * 4),
    "depthwise": (nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False), [4 * 25 * 48] * 4),
    # Padding 2 at dilation 2 keeps the size: dilation moves the taps and adds none.
    "dilation": (nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False), [4 * 4 * 9 * 48] * 4),
    # (6 + 2 - 3) // 2 + 1 = 3 rows and (8 + 2 - 3) // 2 + 1 = 4 columns.
    "stride": (nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False), [4 * 4 * 9 * 12] * 4),
    "same padding": (nn.Conv2d(4, 4, (1, 3), padding="same", bias=False), [4 * 4 * 3 * 48] * 4),
    # 48 input positions; the output has 12 x 16 = 192, 4 times as many.
    "transposed": (
        nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1, bias=False),
        [4 * 3 * 16 * 48, 0, 4 * 3 * 16 * 192, 4 * 3 * 16 * 48],
    ),
    "transposed groups": (
        nn.ConvTranspose2d(4, 8, 2, stride=2, groups=2),
        [4 * 4 * 4 * 48, 0, 4 * 4 * 4 * 192 + 8 * 192, 4 * 4 * 4 * 48],
    ),
    # 24 rows of 8 values each.
    "linear": (nn.Linear(8, 5), [8 * 5 * 24, 0, 0, 8 * 5 * 24]),
    "BatchNorm": (nn.BatchNorm2d(4), [0, 0, 2 * 192, 2 * 192]),
    "BatchNorm without gamma": (nn.BatchNorm2d(4, affine=False), [0, 0, 2 * 192, 192]),
    "layer normalisation": (nn.LayerNorm(8), [0, 0, 0, 5 * 192]),
    "group normalisation without gamma": (nn.GroupNorm(2, 4, affine=False), [0, 0, 0, 4 * 192]),
    "ReLU": (nn.ReLU(), [0, 0, 192, 0]),
    "PReLU": (nn.PReLU(4), [0, 0, 192, 0]),
    "h-swish": (nn.Hardswish(), [0, 0, 192, 0]),
    "average pooling": (nn.AvgPool2d(2), [0, 0, 0, 0]),
    "maximum pooling": (nn.MaxPool2d(2), [0, 0, 0, 0]),
    "adaptive pooling": (nn.AdaptiveAvgPool2d(3), [0, 0, 0, 192]),
    # What leaves the network is enlarged outside of what mmengine counts; before another operation it counts.
    "last resize": (nn.UpsamplingBilinear2d(scale_factor=2), [0, 0, 0, 0]),
    "bilinear resize": (nn.Sequential(nn.UpsamplingBilinear2d(scale_factor=2), nn.ReLU()), [0, 0, 768, 4 * 768]),
    "nearest resize": (nn.Sequential(nn.Upsample(scale_factor=2), nn.ReLU()), [0, 0, 768, 768]),
    "grid sampling": (
        Calls(lambda m, x: F.grid_sample(x, torch.zeros(1, 5, 7, 2, dtype=x.dtype), align_corners=True)),
        [0, 0, 0, 4 * 4 * 35],
    ),
    # (6, 8) times (8, 6), four times.
    "matrix product": (Calls(lambda m, x: x @ x.transpose(2, 3)), [4 * 6 * 6 * 8, 0, 0, 4 * 6 * 6 * 8]),
    "sum of products": (
        Calls(lambda m, x: torch.einsum("nchw,ndhw->ncd", x, x)),
        [4 * 4 * 48, 0, 0, 4 * 4 * 48],
    ),
    # Scores (6, 6) of 8 products each, then (6, 8) of 6 each, in 4 heads.
    "attention": (
        Calls(lambda m, x: F.scaled_dot_product_attention(x, x, x)),
        [4 * (36 * 8 + 48 * 6), 0, 0, 4 * (36 * 8 + 48 * 6)],
    ),
    "sum": (Calls(lambda m, x: x + x), [0, 0, 0, 0]),
}


@pytest.fixture(scope="module")
def operations():
    """Name → the operations of each network of ``BY_HAND``, all of them captured at once as branches of one."""
    names = list(BY_HAND)
    together = Calls(
        lambda m, x: tuple(getattr(m, f"case{i}")(x) for i in range(len(names))),
        **{f"case{i}": BY_HAND[name][0] for i, name in enumerate(names)},
    )
    found = {name: [] for name in names}
    for operation in graph_operations(captured(together, *SHAPE, outputs=names)):
        found[names[int(operation.module.split(".")[0].removeprefix("case"))]].append(operation)
    return found


@pytest.mark.parametrize("name", BY_HAND)
def test_counts_are_those_made_by_hand(operations, name):
    assert [total(operations[name], convention) for convention in Convention] == BY_HAND[name][1]


@pytest.mark.parametrize(
    ("name", "convention", "named"),
    [
        ("transposed", CONV, "conv_transpose2d"),
        ("linear", PORTRAITNET, "linear"),
        ("average pooling", MMENGINE, "avg_pool2d"),
        ("adaptive pooling", MACS, "adaptive_avg_pool2d"),
        ("ReLU", MACS, "relu"),
        ("sum", MMENGINE, "add"),
    ],
)
def test_what_a_convention_leaves_out_is_named(operations, name, convention, named):
    assert not_counted(operations[name], convention) == {named: 1}


def test_none_of_these_operations_is_of_unknown_work(operations):
    assert {name: found for name, own in operations.items() if (found := unknown(own))} == {}


def test_operations_are_listed_in_the_order_of_the_graph(operations):
    assert [one.name for one in operations["bilinear resize"]] == ["upsample_bilinear2d", "relu"]


def test_every_kind_is_either_counted_or_left_out_in_each_convention():
    one = {kind: Operation(kind, kind, inputs=1, outputs=1, kernel=1, positions=1, output_positions=1) for kind in Kind}
    for convention, rules in CONVENTIONS.items():
        counted = {kind for kind, operation in one.items() if count(operation, convention)}
        assert counted == set(rules.rules)


def test_an_operation_that_is_not_known_is_listed_and_counts_nothing():
    lstm = Calls(
        lambda m, x: m.lstm(m.head(x).flatten(2).transpose(1, 2))[0], lstm=nn.LSTM(2, 3), head=nn.Conv2d(4, 2, 1)
    )
    cost = graph_cost(captured(lstm, *SHAPE))
    assert cost.unknown == {"lstm": 1}
    assert "lstm" not in cost.not_counted[MACS]
    assert cost.macs[MACS] == 4 * 2 * 48
    assert cost.parameters == sum(parameter.numel() for parameter in lstm.parameters())


def test_layers_have_the_paths_of_their_modules_and_add_up():
    network = nn.Sequential(conv_bn(4, 8, 3, padding=1), nn.ReLU(), conv_bn(8, 2, 1))
    cost = graph_cost(captured(network, *SHAPE))
    assert {layer.module: layer.macs[MACS] for layer in cost.layers if layer.macs[MACS]} == {
        "0.0": 4 * 8 * 9 * 48,
        "2.0": 8 * 2 * 48,
    }
    for convention in Convention:
        assert sum(layer.macs[convention] for layer in cost.layers) == cost.macs[convention]
    assert [layer.module for layer in cost.largest(PORTRAITNET, 3)] == ["0.0", "0.1", "2.0"]


def test_folding_takes_batch_norms_and_their_parameters_away():
    graph = captured(conv_bn(4, 6, 3, padding=1), *SHAPE)
    before, after = graph_cost(graph), graph_cost(simplify(graph, keep_outputs=None))
    assert (before.parameters, after.parameters) == (6 * 36 + 12, 6 * 36 + 6)
    assert before.macs[MACS] == after.macs[MACS] == before.macs[MMENGINE] - 2 * 6 * 48 == after.macs[MMENGINE]
    assert after.macs[PORTRAITNET] == after.macs[MACS] + 6 * 48


def test_a_weight_that_several_layers_share_is_one():
    def forward(m, x):
        return m.a(x) + m.b(m.a(x))

    shared = Calls(forward, a=nn.Conv2d(4, 4, 1, bias=False), b=nn.Conv2d(4, 4, 1, bias=False))
    shared.b.weight = shared.a.weight
    cost = graph_cost(captured(shared, *SHAPE))
    assert cost.parameters == 16
    assert [item.count for item in cost.operations if item.name == "conv2d"] == [3]


def peak(forward, **children):
    return peak_memory(captured(Calls(forward, **children), *SHAPE))


def test_peak_memory_is_that_of_the_values_alive_at_once():
    # 192 values of 4 bytes: the input, a branch of twice the channels that waits, and what is made of the input.
    wide, point = nn.Conv2d(4, 8, 1), nn.Conv2d(4, 8, 1)
    found = peak(lambda m, x: m.wide(x) + m.point(x).relu(), wide=wide, point=point)
    assert found.size_bytes == 4 * (2 * 192 + 2 * 192 + 2 * 192)
    assert found.operation == "relu"
    chain = peak(lambda m, x: m.wide(x).relu().sum((2, 3)), wide=wide)
    assert (chain.size_bytes, chain.operation) == (4 * (2 * 192 + 2 * 192), "relu")


def test_a_view_takes_no_memory_and_keeps_its_source_alive():
    assert peak(lambda m, x: x.flatten(1).relu()).size_bytes == 4 * 2 * 192
    # The input is read again at the end, through its view: three values live at once, not two.
    assert peak(lambda m, x: (y := x.flatten(1), y.exp().exp() + y)[1]).size_bytes == 4 * 3 * 192


def test_of_several_results_those_that_are_read_take_memory():
    found = peak(lambda m, x: x.max(1)[0])
    assert found.size_bytes == 4 * (192 + 48)


@pytest.mark.parametrize(
    ("equation", "shapes", "expected"),
    [
        ("ij,jk->ik", [(2, 3), (3, 5)], 3),
        ("bij, bkj -> bik", [(7, 2, 3), (7, 5, 3)], 3),
        ("ij->i", [(2, 3)], 3),
        ("i,j->ij", [(2,), (3,)], 1),
        ("ij,jk,kl->il", [(2, 3), (3, 5), (5, 7)], None),
        ("...i,ij->...j", [(2, 3), (3, 5)], None),
        ("ij,jk", [(2, 3), (3, 5)], None),
        ("ij,jk->ik", [(2, 3), None], None),
    ],
)
def test_products_of_an_einsum(equation, shapes, expected):
    assert einsum_inner(equation, shapes) == expected
