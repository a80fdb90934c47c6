from __future__ import annotations

import pytest
import torch
from graph_cases import Calls, captured, operations, randomized
from torch import nn
from torch.nn import functional as F

from deploykit.errors import CaptureError, VerificationError
from deploykit.graph.capture import active_in_training, capture, cast_graph, weights
from deploykit.graph.passes.drop_unused_outputs import drop_unused_outputs

IMAGE = (1, 4, 6, 6)


def test_weights_and_arithmetic_are_float64():
    graph = captured(Calls(lambda m, x: m.a(x) + torch.linspace(0, 1, 6), a=nn.Conv2d(4, 4, 1)), *IMAGE)
    assert {value.dtype for value in weights(graph).values()} == {torch.float64}
    assert graph.run(torch.zeros(*IMAGE, dtype=torch.float64))[0].dtype == torch.float64
    assert cast_graph(graph, torch.float32).run(torch.zeros(*IMAGE))[0].dtype == torch.float32


def test_the_network_is_untouched():
    network = randomized(nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)))
    held = {name: value.clone() for name, value in network.state_dict().items()}
    capture(network, [torch.zeros(*IMAGE)], (), ["out"])
    for name, value in network.state_dict().items():
        assert value.dtype == held[name].dtype
        assert torch.equal(value, held[name])


def test_a_module_left_in_training_mode_is_named():
    network = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout()).eval()
    network[2].train()
    with pytest.raises(VerificationError) as caught:
        capture(network, [torch.zeros(*IMAGE)], (), ["out"])
    assert caught.value.where == "2"


def test_batch_statistics_are_found():
    network = Calls(lambda m, x: m.norm(x), norm=nn.BatchNorm2d(4, track_running_stats=False))
    assert active_in_training(captured(network, *IMAGE)) == ("norm",)


def test_control_flow_that_depends_on_values_is_refused():
    network = Calls(lambda m, x: m.a(x) if bool(x.sum() > 0) else x, a=nn.Conv2d(4, 4, 1))
    with pytest.raises(CaptureError, match="cannot be captured") as caught:
        captured(network, *IMAGE)
    assert caught.value.__cause__ is not None


def test_another_number_of_outputs_is_refused():
    with pytest.raises(CaptureError, match="2 tensors: mask, edge"):
        captured(nn.Conv2d(4, 4, 1), *IMAGE, outputs=["mask", "edge"])


def test_an_assertion_keeps_no_dead_code_alive():
    network = Calls(lambda m, x: (m.a(x), m.b(x).double()), a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 1))
    kept = drop_unused_outputs(captured(network, *IMAGE, outputs=["mask", "edge"]), ["mask"])
    assert operations(kept) == {"conv2d": 1}
    assert set(weights(kept)) == {"a.weight", "a.bias"}


def test_floats_made_of_integers_are_float64():
    def sampled(m, x):
        rows, columns = ((2 * (0.9 * torch.arange(size) + 0.75) + 1) / size - 1 for size in x.shape[2:])
        grid = torch.stack(torch.broadcast_tensors(columns, rows[:, None]), 2)[None]
        return F.grid_sample(m.a(x), grid.to(x), "nearest", "zeros", False) + torch.arange(6) / 7

    graph = captured(Calls(sampled, a=nn.Conv2d(4, 4, 1)), *IMAGE)
    (found,) = graph.run(torch.zeros(*IMAGE, dtype=torch.float64))
    assert found.dtype == torch.float64
    expected = found[..., :1] + torch.arange(6, dtype=torch.float64) / 7
    # In float32 the sevenths would be off by 1e-8.
    assert torch.allclose(found[0, 0, 2], expected[0, 0, 2], rtol=0, atol=1e-15)
    assert cast_graph(graph, torch.float32).run(torch.zeros(*IMAGE))[0].dtype == torch.float32
