from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from graph_cases import (
    BOUND,
    NEUTRAL,
    Calls,
    captured,
    captured_together,
    operations,
    relative_l2,
    skip_reasons,
    without,
)
from torch import nn

from deploykit.graph.graph import Graph, aten, calls, module_path
from deploykit.graph.passes import fold_batch_norm as rule
from deploykit.graph.passes.fold_batch_norm import fold_batch_norm

IMAGE = (2, 8, 9, 9)
LAYERS = {
    "dense": (nn.Conv2d(8, 12, 3), IMAGE),
    "grouped, strided": (nn.Conv2d(8, 12, 3, stride=2, padding=1, groups=4, bias=False), IMAGE),
    "depthwise, dilated": (nn.Conv2d(8, 16, 3, padding=2, dilation=2, groups=8), IMAGE),
    "same padding": (nn.Conv2d(8, 12, 4, padding="same"), IMAGE),
    "reflected padding": (nn.Conv2d(8, 12, 3, padding=1, padding_mode="reflect"), IMAGE),
    "transposed": (nn.ConvTranspose2d(8, 12, 3, stride=2, padding=1, output_padding=1), IMAGE),
    "transposed, grouped": (nn.ConvTranspose2d(8, 12, 4, stride=2, groups=4, bias=False), IMAGE),
    "transposed, depthwise": (nn.ConvTranspose2d(8, 16, 2, stride=2, groups=8, dilation=2), IMAGE),
    "one-dimensional": (nn.Conv1d(8, 12, 3), (2, 8, 9)),
    "linear": (nn.Linear(8, 12), (5, 8)),
    "linear without bias": (nn.Linear(8, 12, bias=False), (5, 8)),
}


def _normalised(layer: nn.Module, shape: tuple[int, ...], **options: object) -> nn.Sequential:
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    kind = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d
    return nn.Sequential(copy.deepcopy(layer), kind(channels, eps=1e-3, **options))


def _folded(network: nn.Module, *shape: int) -> tuple[Graph, Graph]:
    before = captured(network, *shape)
    return before, fold_batch_norm(before)


@pytest.fixture(scope="module")
def layers() -> dict[str, Graph]:
    graphs: dict[str, Graph] = {}
    for shape in {shape for _, shape in LAYERS.values()}:
        networks = {name: _normalised(layer, shape) for name, (layer, at) in LAYERS.items() if at == shape}
        graphs |= captured_together(networks, *shape)
    return graphs


@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_layer_takes_its_batch_norm(name, layers):
    before, shape = layers[name], LAYERS[name][1]
    after = fold_batch_norm(before)
    assert operations(after)["batch_norm"] == 0
    (fired,) = after.report(rule.NAME).fired
    assert [path.split(".")[1] for path in fired.modules] == ["0", "1"]
    assert relative_l2(before, after, *shape) <= BOUND


@pytest.mark.parametrize("kind", ["dense", "transposed, grouped", "linear"])
def test_dropping_one_statistic_is_noticed(kind, layers):
    whole, shape = layers[kind], LAYERS[kind][1]
    (norm,) = (module_path(node) for node in calls(whole.module.graph, aten.batch_norm.default))
    for statistic in NEUTRAL:
        after = fold_batch_norm(without(whole, norm, statistic))
        assert operations(after)["batch_norm"] == 0
        assert relative_l2(whole, after, *shape) > 1e6 * BOUND


def test_no_affine_part():
    before, after = _folded(_normalised(nn.Conv2d(8, 4, 3), IMAGE, affine=False), *IMAGE)
    assert operations(after)["batch_norm"] == 0
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_no_ops_between_are_looked_through():
    network = Calls(
        lambda m, x: m.bn(m.dropout(m.conv(x)) + 0),
        conv=nn.Conv2d(8, 8, 1),
        dropout=nn.Dropout(),
        bn=nn.BatchNorm2d(8),
    )
    before, after = _folded(network, *IMAGE)
    assert operations(after)["batch_norm"] == 0
    assert relative_l2(before, after, *IMAGE) <= BOUND


def test_a_shared_weight_is_copied_for_each_call():
    network = Calls(
        lambda m, x: m.a(m.conv(x)) * m.b(m.conv(2 * x)) + m.conv(x * x),
        conv=nn.Conv2d(8, 8, 3),
        a=nn.BatchNorm2d(8),
        b=nn.BatchNorm2d(8),
    )
    before, after = _folded(network, *IMAGE)
    assert len(after.report(rule.NAME).fired) == 2
    assert relative_l2(before, after, *IMAGE) <= BOUND
    paths = {str(n.target) for n in after.module.graph.nodes if n.op == "get_attr" and "weight" in n.target}
    assert paths == {"conv.weight", "conv.weight_2", "conv.weight_3"}


def test_new_weights_keep_the_path_and_the_origin():
    network = nn.Sequential(nn.Conv2d(8, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
    _, after = _folded(network, *IMAGE)
    assert {name for name, _ in after.module.named_parameters()} == {"0.weight", "0.bias"}
    (conv,) = calls(after.module.graph, aten.conv2d.default)
    assert module_path(conv) == "0"
    assert conv.meta["custom"]["deploykit"] == {"stands_for": "1", "value": "batch_norm_default", "modules": ["0", "1"]}
    exported = torch.export.export(after.module, (torch.zeros(*IMAGE, dtype=torch.float64),))
    kept = [n.meta.get("custom") for n in exported.graph.nodes if n.target is aten.conv2d.default]
    assert kept == [conv.meta["custom"]]


REFUSED = {
    "on the input": (Calls(lambda m, x: m.bn(x), bn=nn.BatchNorm2d(8)), IMAGE, "it follows an input"),
    "on a sum": (
        Calls(lambda m, x: m.bn(m.conv(x) + x), conv=nn.Conv2d(8, 8, 1), bn=nn.BatchNorm2d(8)),
        IMAGE,
        "it follows aten.add.Tensor",
    ),
    "second reader": (
        Calls(lambda m, x: m.bn(y := m.conv(x)) + y, conv=nn.Conv2d(8, 8, 1), bn=nn.BatchNorm2d(8)),
        IMAGE,
        rule.OTHER_READER,
    ),
    "computed weight": (
        Calls(
            lambda m, x: m.bn(F.conv2d(x, m.conv.weight - m.conv.weight.mean((1, 2, 3), keepdim=True))),
            conv=nn.Conv2d(8, 8, 3),
            bn=nn.BatchNorm2d(8),
        ),
        IMAGE,
        rule.COMPUTED_WEIGHT,
    ),
    "batch statistics": (
        Calls(lambda m, x: m.bn(m.conv(x)), conv=nn.Conv2d(8, 8, 1), bn=nn.BatchNorm2d(8, track_running_stats=False)),
        IMAGE,
        rule.BATCH_STATISTICS,
    ),
    "linear, other axis": (
        Calls(lambda m, x: m.bn(m.linear(x)), linear=nn.Linear(8, 8), bn=nn.BatchNorm1d(8)),
        (2, 8, 8),
        rule.OTHER_AXIS,
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_folded_stays_with_its_reason(name):
    network, shape, reason = REFUSED[name]
    before, after = _folded(network, *shape)
    assert after.report(rule.NAME).fired == ()
    (found,) = skip_reasons(after, rule.NAME)
    assert reason in found
    assert operations(after) == operations(before)
    assert relative_l2(before, after, *shape) == 0


def test_the_input_graph_is_untouched():
    before = captured(nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4)), *IMAGE)
    code = before.module.code
    held = {name: value.clone() for name, value in before.module.state_dict().items()}
    fold_batch_norm(before)
    assert before.module.code == code
    assert before.reports == ()
    assert held.keys() == before.module.state_dict().keys()
    assert all(torch.equal(held[name], value) for name, value in before.module.state_dict().items())
    assert not any("custom" in node.meta for node in before.module.graph.nodes)
