from __future__ import annotations

import pytest
import torch
from graph_cases import captured, operations
from torch import nn

from deploykit.graph.passes import prelu_by_slope as rule
from deploykit.graph.passes.prelu_by_slope import prelu_by_slope

IMAGE, VECTOR = (1, 6, 4, 4), (1, 6)


@pytest.mark.parametrize("shape", [IMAGE, VECTOR])
def test_a_prelu_is_a_product_to_the_last_bit(shape):
    before = captured(nn.PReLU(6), *shape)
    before.module.get_parameter("weight").data[:] = torch.tensor([-2.0, -1e-40, 0.0, 0.25, 1.0, 3.0])
    after = prelu_by_slope(before)
    assert operations(after) == {"gt": 1, "where": 1, "mul": 1}
    assert operations(before) == {"prelu": 1}
    noise = torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for x in (noise, *(torch.full(shape, value).double() for value in (-3.0, 0.0, torch.inf))):
        assert torch.equal(before.run(x)[0], after.run(x)[0])
    # The twin: slopes in the wrong order are seen.
    below = next(name for name, _ in after.module.named_parameters() if name.endswith("below"))
    after.module.get_parameter(below).data = after.module.get_parameter(below).data.flip(1)
    assert not torch.equal(before.run(noise)[0], after.run(noise)[0])


def test_it_says_what_it_did_and_does_it_once():
    before = captured(nn.Sequential(nn.Conv2d(6, 6, 1), nn.PReLU(6), nn.Conv2d(6, 6, 1), nn.PReLU(6)), *IMAGE)
    text = str(before.module.graph)
    after = prelu_by_slope(before)
    assert [fired.modules for fired in after.report(rule.NAME).fired] == [("1",), ("3",)]
    assert str(before.module.graph) == text
    again = prelu_by_slope(after)
    assert str(again.module.graph) == str(after.module.graph)
    assert again.reports[-1].fired == ()


def test_one_slope_for_all_channels_stays():
    after = prelu_by_slope(captured(nn.PReLU(1), *IMAGE))
    assert operations(after) == {"prelu": 1}
    assert (after.report(rule.NAME).fired, after.report(rule.NAME).skipped) == ((), ())


class Steep(nn.Module):
    """A PReLU whose slopes are computed from what it gets."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.prelu(x, x.mean((0, 2, 3)))


def test_computed_slopes_are_left_alone_with_the_reason():
    after = prelu_by_slope(captured(Steep(), *IMAGE))
    assert operations(after)["prelu"] == 1
    (skipped,) = after.report(rule.NAME).skipped
    assert skipped.reason == "the slopes are not constant or the size is not static"
