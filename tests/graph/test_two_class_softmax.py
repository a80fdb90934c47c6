from __future__ import annotations

import pytest
import torch
from form_cases import same_form_twice
from graph_cases import Calls, captured, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.passes import two_class_softmax as rule
from deploykit.graph.passes.two_class_softmax import two_class_softmax

SHAPE = (2, 2, 3, 5)


@pytest.mark.parametrize("axis", [1, -3])
def test_two_classes_are_a_sigmoid(axis):
    before = captured(nn.Sequential(nn.Conv2d(2, 2, 1), nn.Softmax(axis)), *SHAPE)
    after = same_form_twice(two_class_softmax, before, *SHAPE)
    assert operations(after) == {"conv2d": 1, "flip": 1, "sub": 1, "sigmoid": 1}
    assert after.report(rule.NAME).fired[0].modules == ("1",)
    # The twin: the classes swapped are seen.
    swapped = captured(Calls(lambda m, x: torch.softmax(m.conv(x), 1).flip(1), conv=nn.Conv2d(2, 2, 1)), *SHAPE)
    assert relative_l2(swapped, after, *SHAPE) > 1e-2


def test_large_scores_do_not_overflow():
    after = two_class_softmax(captured(nn.Softmax(1), *SHAPE))
    x = torch.full(SHAPE, 1e4, dtype=torch.float64)
    x[:, 1] = -1e4
    assert torch.equal(after.run(x)[0], torch.softmax(x, 1))


def _larger(m: Calls, x: torch.Tensor) -> torch.Tensor:
    return torch.softmax(x, 1).max(1)[0].unsqueeze(1).expand(x.shape) * x


@pytest.mark.parametrize(
    "larger",
    [
        _larger,
        lambda m, x: torch.softmax(x, 1).amax(1, keepdim=True) * x,
        lambda m, x: torch.softmax(x, 1).amax(1),
        lambda m, x: torch.softmax(x, 1).max(1, keepdim=True)[0],
    ],
)
def test_the_larger_of_two_is_a_sigmoid_of_the_distance(larger):
    after = same_form_twice(two_class_softmax, captured(Calls(larger), *SHAPE), *SHAPE)
    assert operations(after)["softmax"] == operations(after)["max"] == operations(after)["amax"] == 0
    assert operations(after)["abs"] == operations(after)["sigmoid"] == 1


@pytest.mark.parametrize(
    "reader",
    [
        lambda m, x: torch.softmax(x, 1).amin(1),
        lambda m, x: torch.softmax(x, 1).amax((1, 2)),
        lambda m, x: sum(torch.softmax(x, 1).max(1)),
    ],
)
def test_other_readers_get_both_classes(reader):
    after = same_form_twice(two_class_softmax, captured(Calls(reader), *SHAPE), *SHAPE)
    assert operations(after)["flip"] == 1


def test_what_does_not_fit_stays_with_the_reason():
    cases = {
        rule.OTHER_COUNT.format(count=3): (nn.Softmax(1), (1, 3, 4, 5)),
        rule.OTHER_AXIS: (nn.Softmax(3), (1, 2, 4, 2)),
    }
    for reason, (network, shape) in cases.items():
        after = two_class_softmax(captured(network, *shape))
        assert operations(after)["softmax"] == 1
        assert skip_reasons(after, rule.NAME) == [reason]
    mixed = captured(nn.Softmax(1), *SHAPE)
    (softmax,) = mixed.module.graph.find_nodes(op="call_function", target=torch.ops.aten.softmax.int)
    softmax.meta["val"] = softmax.meta["val"].float()
    assert skip_reasons(two_class_softmax(mixed), rule.NAME) == [rule.OTHER_DTYPE]
    vector = two_class_softmax(captured(nn.Softmax(1), 3, 2))
    assert skip_reasons(vector, rule.NAME) == [rule.OTHER_AXIS]
