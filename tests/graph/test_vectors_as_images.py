from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2, skip_reasons
from optimize_cases import noise, same, wrong_records
from torch import nn

from deploykit.graph.passes import vectors_as_images as rule
from deploykit.graph.passes.vectors_as_images import vectors_as_images

SHAPE = (2, 6, 5, 4)
RESHAPES = {"view", "flatten", "squeeze", "unsqueeze", "reshape", "unflatten"}


def _gate(m, x, pooled):
    return x * m.wide(m.slope(m.narrow(pooled)))[:, :, None, None]


def _layers():
    return {"narrow": nn.Linear(6, 3), "slope": nn.PReLU(3), "wide": nn.Linear(3, 6, bias=False)}


def _one(pooled):
    return pooled.squeeze(-1).squeeze(-1)


def _squared(vectors):
    return vectors @ vectors.T


def _also_multiplied(x, vectors):
    return x * vectors[:, :, None, None] + _squared(vectors).sum()


CASES = {
    "flatten": Calls(lambda m, x: _gate(m, x, F.adaptive_avg_pool2d(x, 1).flatten(1)), **_layers()),
    "view": Calls(lambda m, x: _gate(m, x, F.adaptive_avg_pool2d(x, 1).view(2, 6)), **_layers()),
    "squeeze": Calls(lambda m, x: _gate(m, x, _one(F.adaptive_max_pool2d(x, 1))), **_layers()),
    "mean": Calls(lambda m, x: _gate(m, x, x.mean((2, 3))), **_layers()),
    "maximum": Calls(lambda m, x: _gate(m, x, x.amax((-1, -2))), **_layers()),
    "one axis": Calls(
        lambda m, x: x * m.slope(F.adaptive_avg_pool2d(x, 1).squeeze(-1)).unsqueeze(-1), slope=nn.PReLU(6)
    ),
    "one axis, weight": Calls(
        lambda m, x: x + (m.shift * F.adaptive_avg_pool2d(x, 1).flatten(2)).view(2, 6, 1, 1),
        shift=nn.Parameter(torch.zeros(6, 1)),
    ),
    "arithmetic": Calls(
        lambda m, x: (
            x * (1 - torch.sigmoid(m.a(x.mean((2, 3))) + m.b(x.amax((2, 3))) * m.shift - m.number)).view(2, 6, 1, 1)
        ),
        a=nn.Linear(6, 6),
        b=nn.Linear(6, 6),
        shift=nn.Parameter(torch.zeros(6)),
        number=nn.Parameter(torch.zeros(())),
    ),
    "norm": Calls(
        lambda m, x: x + m.norm(torch.relu(F.adaptive_avg_pool2d(x, 1).flatten(1)))[:, :, None, None],
        norm=nn.BatchNorm1d(6),
    ),
    "nothing between": Calls(lambda m, x: x * F.adaptive_avg_pool2d(x, 1).flatten(1)[:, :, None, None]),
    "two readers": Calls(
        lambda m, x: _also_multiplied(x, m.slope(F.adaptive_avg_pool2d(x, 1).flatten(1))),
        slope=nn.PReLU(6),
    ),
}
REFUSED = {
    "an output": Calls(lambda m, x: m.slope(m.wide(x.mean((2, 3)))), wide=nn.Linear(6, 3), slope=nn.PReLU(3)),
    "read by a matrix product": Calls(
        lambda m, x: _squared(m.slope(F.adaptive_avg_pool2d(x, 1).flatten(1))), slope=nn.PReLU(6)
    ),
}
ALONE = {
    "a vector to begin with": Calls(lambda m, x: x[:, :, 0, 0].relu()[:, :, None, None] * x),
    "one axis reduced": Calls(lambda m, x: x.mean(3).relu().unsqueeze(3)),
    "more than one pixel": Calls(lambda m, x: F.adaptive_avg_pool2d(x, 2).flatten(1)[:, :6, None, None] * x),
    "channels in another order": Calls(
        lambda m, x: F.adaptive_avg_pool2d(x, 1).view(6, 2).relu().view(2, 6, 1, 1) * x,
    ),
    "weights that are computed": Calls(lambda m, x: F.linear(x.mean((2, 3)), x[0, :, :4, 0].T.relu())),
}


@pytest.fixture(scope="module")
def graphs():
    return captured_together({**CASES, **REFUSED, **ALONE}, *SHAPE)


@pytest.mark.parametrize("name", [name for name in CASES if name != "two readers"])
def test_no_reshape_is_left(graphs, name):
    after = vectors_as_images(graphs[name])
    assert not operations(after).keys() & (RESHAPES | {"linear"})
    assert after.report(rule.NAME).fired
    assert relative_l2(graphs[name], after, *SHAPE) <= BOUND
    assert wrong_records(graphs[name], after, noise(*SHAPE)) == []
    values = [node.meta["val"] for node in after.module.graph.nodes if node.op == "call_function"]
    assert {value.dim() for value in values if isinstance(value, torch.Tensor)} == {4}
    again = vectors_as_images(after)
    assert not again.reports[-1].fired
    assert same(again, after)


def test_the_layers_are_convolutions(graphs):
    after = vectors_as_images(graphs["flatten"])
    assert operations(after) == {"adaptive_avg_pool2d": 1, "conv2d": 2, "prelu": 1, "mul": 1}
    (fired,) = after.report(rule.NAME).fired
    assert [path.partition(".")[2] for path in fired.modules] == ["narrow", "slope", "wide"]
    assert fired.detail == "3 reshapes left out"


def test_another_reader_gets_the_vector(graphs):
    after = vectors_as_images(graphs["two readers"])
    assert operations(after)["view"] == 1
    assert not operations(after).keys() & {"flatten", "unsqueeze"}
    assert after.report(rule.NAME).fired[0].detail == "3 reshapes left out, 1 put in"
    assert relative_l2(graphs["two readers"], after, *SHAPE) <= BOUND
    assert wrong_records(graphs["two readers"], after, noise(*SHAPE)) == []
    assert same(vectors_as_images(after), after)


@pytest.mark.parametrize("name", REFUSED)
def test_vectors_that_are_read_as_such_stay(graphs, name):
    after = vectors_as_images(graphs[name])
    assert not after.report(rule.NAME).fired
    assert same(after, graphs[name])
    (reason,) = skip_reasons(after, rule.NAME)
    assert reason.startswith("it is read as a vector elsewhere")


@pytest.mark.parametrize("name", ALONE)
def test_what_is_no_image_of_one_pixel_is_left_alone(graphs, name):
    after = vectors_as_images(graphs[name])
    assert not after.report(rule.NAME).fired
    assert same(after, graphs[name])


def test_the_input_stays_as_it_was(graphs):
    text = str(graphs["mean"].module.graph)
    vectors_as_images(graphs["mean"])
    assert str(graphs["mean"].module.graph) == text


def test_a_slope_of_another_channel_is_seen(graphs):
    """The twin: the same form with two slopes exchanged is another network."""
    after = vectors_as_images(graphs["flatten"])
    slope = next(p for name, p in after.module.named_parameters() if name.endswith("slope.weight"))
    slope.data.copy_(slope.flip(0))
    assert relative_l2(graphs["flatten"], after, *SHAPE) > 1e-3
