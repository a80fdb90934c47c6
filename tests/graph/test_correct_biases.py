from __future__ import annotations

import pytest
import torch
from graph_cases import Calls, captured, skip_reasons
from optimize_cases import noise, values_of
from torch import Tensor, nn

from deploykit.graph.graph import Graph
from deploykit.graph.layers import layer_weights
from deploykit.graph.passes import correct_biases as rule
from deploykit.graph.passes.correct_biases import correct_biases, rounded_to_8_bits

LAYERS = {
    "convolution": lambda: nn.Conv2d(4, 6, 1),
    "without a bias": lambda: nn.Conv2d(4, 6, 1, bias=False),
    "in groups": lambda: nn.Conv2d(4, 6, 1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 6, 2, 2),
    "transposed in groups": lambda: nn.ConvTranspose2d(4, 6, 2, 2, groups=2),
}


def _means(graph: Graph, x: Tensor) -> dict[str, Tensor]:
    return {
        node.name: value.mean([axis for axis in range(value.dim()) if axis != 1])
        for node, value in values_of(graph, x).items()
        if isinstance(value, Tensor) and value.dim() in (2, 4)
    }


def _in_8_bits(graph: Graph) -> Graph:
    copied = graph.copy()
    for node in copied.module.graph.nodes:
        read = (
            layer_weights(copied.module, node) if "conv" in str(node.target) or "linear" in str(node.target) else None
        )
        if read is not None:
            rounded = rounded_to_8_bits(read[0], by_column="transpose" in str(node.target))
            read[0].copy_(rounded)
    return copied


@pytest.mark.parametrize("name", list(LAYERS))
def test_the_mean_of_each_channel_is_what_it_was_before_rounding(name):
    torch.manual_seed(1)
    graph = captured(Calls(lambda m, x: m.a(x), a=LAYERS[name]()), 1, 4, 8, 8)
    x = (noise(1, 4, 1, 1) + 3).expand(1, 4, 8, 8)
    corrected = correct_biases(graph, _means(graph, x))

    def means(one: Graph) -> Tensor:
        return one.run(x)[0].mean((0, 2, 3))

    error = (means(_in_8_bits(corrected)) - means(graph)).abs().max()
    plain = (means(_in_8_bits(graph)) - means(graph)).abs().max()
    assert error < 1e-12 < 1e-4 < plain


def test_what_was_not_seen_is_left_alone():
    graph = captured(Calls(lambda m, x: m.a(x), a=nn.Conv2d(4, 6, 1)), 1, 4, 8, 8)
    after = correct_biases(graph, {})
    assert skip_reasons(after, rule.NAME) == [rule.UNSEEN]
    x = noise(1, 4, 8, 8)
    assert torch.equal(after.run(x)[0], graph.run(x)[0])


def test_rounding_has_255_levels_for_each_output_channel():
    weight = torch.randn(3, 5, 3, 3, dtype=torch.float64) * torch.tensor([1.0, 1e-6, 0.0])[:, None, None, None]
    rounded = rounded_to_8_bits(weight)
    steps = weight.abs().amax((1, 2, 3)) / 127
    assert bool(((rounded - weight).abs().amax((1, 2, 3)) <= steps / 2 + 1e-18).all())
    assert not rounded[2].any()
