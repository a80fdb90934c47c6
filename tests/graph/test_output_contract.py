"""Probabilities and masks in the graph: equal to PyTorch's own, and the difference of two classes moved forward."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured, operations
from torch import nn

from deploykit.errors import UsageError
from deploykit.graph.cost import graph_cost
from deploykit.graph.optimize import optimize
from deploykit.graph.passes.output_contract import NAME, output_contract
from deploykit.vocab import Convention, OutputKind

LOGITS, PROBABILITY, MASK = OutputKind
SHAPE = (1, 3, 8, 12)


def upsampled(head):
    return Calls(
        lambda m, x: F.interpolate(m.head(F.relu(m.body(x))), scale_factor=2, mode="bilinear", align_corners=False),
        body=nn.Conv2d(3, 8, 3, padding=1),
        head=head,
    )


def head_is_grouped(head):
    return getattr(head, "groups", 1) > 1


def given():
    return torch.randn(*SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def expected(scores, kind):
    channels = scores.shape[1]
    if kind is MASK:
        return (scores > 0).double() if channels == 1 else scores.argmax(1, keepdim=True).double()
    if channels == 1:
        return torch.sigmoid(scores)
    return torch.softmax(scores, 1)[:, 1 if channels == 2 else 0 :]


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("kind", [PROBABILITY, MASK])
def test_the_graph_gives_what_pytorch_makes_of_its_scores(classes, kind):
    graph = captured(upsampled(nn.Conv2d(8, classes, 1)), *SHAPE)
    (scores,) = graph.run(given())
    before = operations(graph)
    contract = output_contract(graph, kind, {"out": classes if classes > 1 else 0})
    assert operations(graph) == before, "the graph that was given stays as it was"
    optimized = optimize(contract)
    for one in (contract, optimized):
        (found,) = one.run(given())
        assert found.dtype == torch.float64
        assert found.shape == expected(scores, kind).shape
        assert (found - expected(scores, kind)).abs().max() < BOUND
        result = next(node for node in one.module.graph.nodes if node.op == "output").args[0][0]
        assert (tuple(result.meta["val"].shape), result.meta["val"].dtype) == (found.shape, found.dtype)
    report = contract.report(NAME)
    assert [fired.detail for fired in report.fired] == [
        f"out gives the {kind} of its {classes} channels" if classes > 1 else f"out gives the {kind} of its score"
    ]


def test_of_equal_scores_the_first_class_wins():
    same = Calls(lambda m, x: torch.cat([x[:, :1], x[:, :1]], 1) * 1.0)
    (found,) = output_contract(captured(same, *SHAPE), MASK, {"out": 2}).run(given())
    assert (found == 0).all()


@pytest.mark.parametrize(
    ("head", "last"),
    [
        (nn.Conv2d(8, 2, 1), "conv2d"),
        (nn.Conv2d(8, 2, 3, padding=1, bias=False), "conv2d"),
        (nn.Conv2d(8, 2, 3, padding=2, dilation=2, groups=2), "conv2d"),
        (nn.ConvTranspose2d(8, 2, 4, stride=2, padding=1), "conv_transpose2d"),
        (nn.Sequential(nn.Conv2d(8, 2, 1), nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2)), "conv2d"),
    ],
    ids=["1x1", "3x3", "grouped", "transposed", "two resizes"],
)
def test_the_difference_moves_before_the_resize_and_into_the_last_layer(head, last):
    graph = captured(upsampled(head), *SHAPE)
    logits = optimize(graph)
    optimized = optimize(output_contract(graph, PROBABILITY, {"out": 2}))
    found, plain = operations(optimized), operations(logits)
    *_, before_last, result = (node for node in optimized.module.graph.nodes if node.op == "call_function")
    assert str(result.target) == "aten.sigmoid.default"
    assert "upsample" in str(before_last.target)
    assert before_last.meta["val"].shape[1] == 1, "one channel is resized"
    assert found - plain == {"sigmoid": 1}, "the difference became part of the last layer"
    convolutions = [node for node in optimized.module.graph.nodes if last in str(node.target)]
    assert convolutions[-1].meta["val"].shape[1] == 1
    macs = [graph_cost(one).macs[Convention.MACS] for one in (logits, optimized)]
    # One dense channel costs what two of a layer in two groups did; the difference itself costs nothing.
    assert macs[1] == macs[0] if head_is_grouped(head) else macs[1] < macs[0]


def test_a_second_reader_of_the_scores_keeps_the_last_layer():
    network = Calls(lambda m, x: (m.head(x), m.head(x).mean((2, 3))), head=nn.Conv2d(3, 2, 1))
    graph = captured(network, *SHAPE, outputs=("out", "means"))
    with pytest.raises(UsageError, match="nothing says which class"):
        output_contract(graph, PROBABILITY, {"out": 2, "means": 2})

    def twice(m, x):
        scores = m.head(x)
        return scores, scores * 2

    shared = Calls(twice, head=nn.Conv2d(3, 2, 1))
    graph = captured(shared, *SHAPE, outputs=("out", "twice"))
    found = output_contract(graph, PROBABILITY, {"out": 2, "twice": 2})
    assert operations(optimize(found))["sigmoid"] == 2
    for one, scores in zip(optimize(found).run(given()), graph.run(given()), strict=True):
        assert (one - expected(scores, PROBABILITY)).abs().max() < BOUND


@pytest.mark.parametrize(
    ("network", "classes", "found"),
    [
        (nn.Conv2d(3, 2, 1), 0, "shape [1, 2, 8, 12], no classes"),
        (nn.Conv2d(3, 4, 1), 3, "shape [1, 4, 8, 12], 3 classes"),
        (Calls(lambda m, x: x.mean((2, 3))), 3, "shape [1, 3], 3 classes"),
    ],
    ids=["no names", "other names", "not 4-D"],
)
def test_an_output_whose_channels_nobody_names_is_refused(network, classes, found):
    with pytest.raises(UsageError, match="nothing says which class") as caught:
        output_contract(captured(network, *SHAPE), MASK, {"out": classes})
    assert caught.value.found == found
    assert caught.value.where == "output out"
    assert "name the classes" in caught.value.next_step
