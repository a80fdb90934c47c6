"""The rules as data, and what they ask of an operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from deploykit.graph.capture import capture
from deploykit.graph.operations import operation_name
from deploykit.preflight import predicates
from deploykit.preflight.neural_engine import NEURAL_ENGINE, WHOLE_PROGRAM
from deploykit.preflight.records import Verdict
from deploykit.preflight.rules import ADVICE, MANY, REFUSALS
from deploykit.vocab import Precision, Target

RULES = (*REFUSALS, *MANY, *ADVICE, *WHOLE_PROGRAM)


def test_every_rule_says_why_and_where_to_look_it_up():
    for rule in RULES:
        assert len(rule.reason) > 20, rule
        assert rule.source.startswith(("https://", "docs/")), rule
        assert rule.precisions
    for rule in (*NEURAL_ENGINE, *WHOLE_PROGRAM):
        assert rule.verdict is Verdict.ADVISORY, "advice never refuses"
        assert rule.target is Target.COREML
        assert rule.source.startswith("https://"), rule
    assert {rule.verdict for rule in REFUSALS} == {Verdict.REFUSED}
    assert {rule.verdict for rule in MANY} == {Verdict.MANY}


def test_advice_on_the_neural_engine_is_for_half_precision_alone():
    assert {rule.precisions for rule in NEURAL_ENGINE} == {(Precision.FP16,)}
    assert {rule.precisions for rule in WHOLE_PROGRAM} == {(Precision.FP32,)}


class Layers(nn.Module):
    def __init__(self, forward: Callable[..., object], **children: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self, x)


def nodes(forward: Callable[..., object], **children: nn.Module) -> list[fx.Node]:
    graph = capture(Layers(forward, **children).eval(), [torch.zeros(1, 8, 32, 32)], (), ("out",))
    return [node for node in graph.module.graph.nodes if node.op == "call_function"]


def held(predicate: predicates.Predicate, forward: Callable[..., object], **children: nn.Module) -> list[str]:
    """The names of the operations of which ``predicate`` is true."""
    return [operation_name(node) for node in nodes(forward, **children) if predicate(node)]


def test_a_transpose_pair_is_found_and_a_single_one_is_not():
    linear = nn.Linear(8, 8)
    there_and_back = lambda m, x: m.fc(F.gelu(m.fc(x.permute(0, 2, 3, 1)))).permute(0, 3, 1, 2)  # noqa: E731
    assert held(predicates.undone_later, there_and_back, fc=linear) == ["permute"]
    assert held(predicates.undone_later, lambda m, x: F.relu(x.transpose(1, 2)).transpose(2, 1)) == ["transpose"]
    assert held(predicates.undone_later, lambda m, x: m.fc(x.permute(0, 2, 3, 1)), fc=linear) == []
    elsewhere = lambda m, x: m.fc(x.permute(0, 2, 3, 1)).permute(0, 2, 3, 1)  # noqa: E731
    assert held(predicates.undone_later, elsewhere, fc=linear) == []
    mixed = lambda m, x: x.permute(0, 2, 3, 1).flatten(1).view(1, 32, 32, 8).permute(0, 3, 1, 2)  # noqa: E731
    assert held(predicates.undone_later, mixed) == []


@pytest.mark.parametrize(
    ("predicate", "layer", "other"),
    [
        (predicates.dilated, nn.Conv2d(8, 8, 3, dilation=2), nn.Conv2d(8, 8, 3)),
        (predicates.grouped, nn.ConvTranspose2d(8, 8, 4, 2, groups=8), nn.ConvTranspose2d(8, 8, 4, 2)),
        (predicates.last_axis_of_one, nn.Conv2d(8, 8, (1, 32)), nn.Conv2d(8, 8, (1, 31))),
    ],
)
def test_a_layer_is_told_from_another(predicate, layer, other):
    layer = (
        nn.Sequential(layer, nn.Upsample(scale_factor=(16, 1)))
        if isinstance(layer.kernel_size[1], int) and (layer.kernel_size[1] == 32)
        else layer
    )
    assert held(predicate, lambda m, x: m.layer(x), layer=layer)
    assert not held(predicate, lambda m, x: m.layer(x), layer=other)


def test_axes_are_counted():
    shuffle = lambda m, x: x.view(1, 2, 4, 32, 32).transpose(1, 2).reshape(x.shape)  # noqa: E731
    assert "transpose" in held(predicates.of_rank(5), shuffle)
    assert held(predicates.of_rank_above(5), shuffle) == []
    six = lambda m, x: x.view(1, 8, 4, 8, 4, 8).transpose(3, 4).reshape(x.shape)  # noqa: E731
    assert "transpose" in held(predicates.of_rank_above(5), six)
