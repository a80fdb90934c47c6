from __future__ import annotations

import pytest
import torch
from graph_cases import BOUND, Calls, captured, operations, relative_l2
from torch import nn

from deploykit.graph.passes import prelu_on_vectors as rule
from deploykit.graph.passes.prelu_on_vectors import prelu_on_vectors

VECTOR, IMAGE = (1, 6), (1, 6, 4, 4)


@pytest.mark.parametrize("slopes", [6, 1])
def test_a_prelu_on_vectors_is_written_out_exactly(slopes):
    before = captured(nn.Sequential(nn.Linear(6, 6), nn.PReLU(slopes), nn.Linear(6, 6)), *VECTOR)
    after = prelu_on_vectors(before)
    assert operations(after) == {"linear": 2, "relu": 2, "neg": 1, "mul": 1, "sub": 1}
    assert relative_l2(before, after, *VECTOR) <= BOUND
    (fired,) = after.report(rule.NAME).fired
    assert fired.modules == ("1",)
    assert operations(before)["prelu"] == 1


def test_slopes_of_any_sign_and_size_are_exact():
    before = captured(nn.PReLU(6), *VECTOR)
    before.module.get_parameter("weight").data[:] = torch.tensor([-2.0, -1e-40, 0.0, 0.25, 1.0, 3.0])
    after = prelu_on_vectors(before)
    for x in (torch.full(VECTOR, -3.0), torch.full(VECTOR, 2.0), torch.zeros(VECTOR)):
        assert torch.equal(before.run(x.double())[0], after.run(x.double())[0])
    # The twin: a slope taken without its sign is seen.
    after.module.get_parameter("weight").data.abs_()
    negative = torch.full(VECTOR, -3.0, dtype=torch.float64)
    assert not torch.allclose(before.run(negative)[0], after.run(negative)[0])


def test_a_prelu_on_images_stays():
    after = prelu_on_vectors(captured(nn.Sequential(nn.Conv2d(6, 6, 1), nn.PReLU(6)), *IMAGE))
    assert operations(after) == {"conv2d": 1, "prelu": 1}
    assert after.report(rule.NAME).fired == ()


def test_only_the_vectors_of_a_squeeze_excite_change():
    network = Calls(
        lambda m, x: m.slope(x) * torch.sigmoid(m.small(m.reduce(x.mean((2, 3)))))[:, :, None, None],
        slope=nn.PReLU(6),
        reduce=nn.Linear(6, 6),
        small=nn.PReLU(6),
    )
    before = captured(network, *IMAGE)
    text = str(before.module.graph)
    after = prelu_on_vectors(before)
    assert operations(after)["prelu"] == 1
    assert [fired.modules for fired in after.report(rule.NAME).fired] == [("small",)]
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert str(before.module.graph) == text
