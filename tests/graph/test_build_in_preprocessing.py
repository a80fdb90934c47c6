from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from graph_cases import BOUND, Calls, capture, operations, randomized, skip_reasons
from torch import Tensor, nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import build_in_preprocessing as rule
from deploykit.graph.passes.build_in_preprocessing import Normalisation, build_in_preprocessing
from deploykit.vocab import TensorSpec

IMAGE = (1, 3, 8, 8)
MEAN, SCALE = (104.0, 117.0, 123.0), (0.017, 0.018, -0.019)
RULE = Normalisation(MEAN, SCALE, "float32")


def images(network: nn.Module, *names: str) -> Graph:
    examples = [torch.zeros(*IMAGE) for _ in names]
    specs = [TensorSpec(name, IMAGE, "float32") for name in names]
    graph = capture(randomized(network), examples, specs, ["out"])
    for name, weight in graph.module.named_parameters():
        if name.endswith("weight"):
            # No weight so small that any of the scales makes it subnormal in half precision.
            weight.data = weight.data.sign() * (0.1 + weight.data.abs())
    return graph


def stem(**options: object) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, **options), nn.ReLU(), nn.Conv2d(5, 2, 1))


def pixels(seed: int = 0) -> Tensor:
    return torch.randint(0, 256, IMAGE, generator=torch.Generator().manual_seed(seed)).double()


def normalised(x: Tensor, mean: tuple[float, ...] = MEAN, scale: tuple[float, ...] = SCALE) -> Tensor:
    shape = (1, -1, 1, 1)
    return (x - torch.tensor(mean, dtype=torch.float64).reshape(shape)) * torch.tensor(
        scale, dtype=torch.float64
    ).reshape(shape)


def error(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).norm() / truth.norm())


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"bias": False}, {"padding_mode": "zeros"}])
def test_the_graph_takes_pixels_and_gives_the_same(dtype, options):
    before = images(stem(**options), "image")
    text = str(before.module.graph)
    after = build_in_preprocessing(before, {"image": replace(RULE, pixel_dtype=dtype)})
    assert after.inputs == (TensorSpec("image", IMAGE, dtype),)
    x = pixels()
    (found,) = after.run(x.byte() if dtype == "uint8" else x)
    (truth,) = before.run(normalised(x))
    assert found.dtype == torch.float64
    assert error(found, truth) <= BOUND
    # The mean is subtracted at the input, the scale is in the first convolution.
    found_operations = operations(after)
    assert found_operations["sub"] == 1
    assert not found_operations["mul"]
    assert skip_reasons(after, rule.NAME) == []
    assert str(before.module.graph) == text
    assert before.inputs[0].dtype == "float32"


@pytest.mark.parametrize(("mean", "scale"), [((0.0,), (1 / 255,)), ((127.5,), (1 / 127.5,)), (MEAN, (0.02,))])
def test_one_value_stands_for_every_channel(mean, scale):
    before = images(stem(), "image")
    after = build_in_preprocessing(before, {"image": Normalisation(mean, scale, "float32")})
    x = pixels()
    truth = before.run(normalised(x, mean * (3 // len(mean)), scale * 3))[0]
    assert error(after.run(x)[0], truth) <= BOUND


@pytest.mark.parametrize("dropped", ["mean", "scale", "order"])
def test_what_is_dropped_is_seen(dropped):
    before = images(stem(), "image")
    wrong = {
        "mean": Normalisation((0.0,), SCALE, "float32"),
        "scale": Normalisation(MEAN, (1.0,), "float32"),
        "order": Normalisation(MEAN[::-1], SCALE[::-1], "float32"),
    }[dropped]
    x = pixels()
    after = build_in_preprocessing(before, {"image": wrong})
    assert error(after.run(x)[0], before.run(normalised(x))[0]) > 1e-3


def test_a_mean_folded_through_zero_padding_is_wrong_at_the_border_only():
    """The twin of keeping the subtraction: moved into the bias it is right inside and wrong at the border."""
    before = images(nn.Conv2d(3, 5, 3, padding=1), "image")
    folded = before.copy()
    weight, bias = folded.module.get_parameter("weight"), folded.module.get_parameter("bias")
    scaled = weight.data * torch.tensor(SCALE, dtype=torch.float64).reshape(1, 3, 1, 1)
    bias.data = bias.data - (scaled * torch.tensor(MEAN, dtype=torch.float64).reshape(1, 3, 1, 1)).sum((1, 2, 3))
    weight.data = scaled
    x = pixels()
    (truth,), (found,) = before.run(normalised(x)), folded.run(x)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert error(found[inside], truth[inside]) <= BOUND
    assert error(found, truth) > 0.1
    (kept,) = build_in_preprocessing(before, {"image": RULE}).run(x)
    assert error(kept, truth) <= BOUND


@pytest.mark.parametrize(
    ("weight", "scale", "folds"),
    [
        (0.1, 0.02, True),
        (2.0**-13, 0.5, True),
        (2.0**-13, 0.49, False),
        # Subnormal without the scale as well: nothing is lost by folding.
        (2.0**-15, 0.1, True),
        (0.0, 0.1, True),
        (1.0, 6e-5, False),
    ],
)
def test_the_scale_is_folded_unless_a_weight_becomes_subnormal_in_half_precision(weight, scale, folds):
    before = images(stem(), "image")
    first = before.module.get_parameter("0.weight").data
    first *= 1e5
    first[0, 0, 0, 0] = weight
    after = build_in_preprocessing(before, {"image": Normalisation(MEAN, (scale,), "float32")})
    assert operations(after)["mul"] == (0 if folds else 1)
    reasons = skip_reasons(after, rule.NAME)
    assert len(reasons) == (0 if folds else 1)
    if not folds:
        assert "the scale of image stays a multiplication" in reasons[0]
        assert "of the first layer's 135 weights would be subnormal in half precision" in reasons[0]
    x = pixels()
    assert error(after.run(x)[0], before.run(normalised(x, MEAN, (scale,) * 3))[0]) <= BOUND


READERS = {
    "a pooling": lambda m, x: m.conv(nn.functional.avg_pool2d(x, 2)),
    "a grouped convolution": lambda m, x: m.grouped(x),
    "a convolution and a sum": lambda m, x: m.conv(x).sum() + x.sum(1, keepdim=True),
    "a padding": lambda m, x: m.conv(nn.functional.pad(x, (1, 1, 1, 1), "reflect")),
    "the output": lambda m, x: x,
}


@pytest.mark.parametrize("name", READERS)
def test_the_scale_stays_where_no_dense_convolution_reads_the_input(name):
    network = Calls(READERS[name], conv=nn.Conv2d(3, 4, 3), grouped=nn.Conv2d(3, 6, 3, groups=3, padding=1))
    before = images(network, "image")
    after = build_in_preprocessing(before, {"image": RULE})
    assert operations(after)["mul"] == operations(before)["mul"] + 1
    assert "is not a dense convolution" in skip_reasons(after, rule.NAME)[0]
    x = pixels()
    assert error(after.run(x)[0], before.run(normalised(x))[0]) <= BOUND


def test_two_convolutions_that_share_a_weight_and_read_the_input():
    network = Calls(
        lambda m, x: m.conv(x) + m.other(x) * nn.functional.conv2d(x, m.conv.weight, padding=1)
        + m.conv(torch.relu(x)),
        conv=nn.Conv2d(3, 4, 3, padding=1),
        other=nn.Conv2d(3, 4, 1),
    )  # fmt: skip
    before = images(network, "image")
    # Without the last reader, the scale goes into each of the three.
    for graph, folds in ((before, False), (images(_without_relu(), "image"), True)):
        after = build_in_preprocessing(graph, {"image": RULE})
        assert (skip_reasons(after, rule.NAME) == []) is folds
        x = pixels()
        assert error(after.run(x)[0], graph.run(normalised(x))[0]) <= BOUND


def _without_relu() -> nn.Module:
    return Calls(
        lambda m, x: m.conv(x) + m.other(x) * nn.functional.conv2d(x, m.conv.weight, padding=1),
        conv=nn.Conv2d(3, 4, 3, padding=1),
        other=nn.Conv2d(3, 4, 1),
    )


def test_only_the_inputs_that_have_a_rule_change():
    network = Calls(lambda m, x, y=None: m.a(x), a=nn.Conv2d(3, 4, 3))
    network.forward = lambda left, right: network.a(left) * network.b(right)
    network.b = nn.Conv2d(3, 4, 3)
    before = images(network, "left", "right")
    after = build_in_preprocessing(before, {"right": replace(RULE, pixel_dtype="uint8")})
    assert [spec.dtype for spec in after.inputs] == ["float32", "uint8"]
    left, right = pixels(1), pixels(2)
    assert error(after.run(left, right.byte())[0], before.run(left, normalised(right))[0]) <= BOUND


def test_an_input_that_nothing_reads():
    network = nn.Conv2d(3, 4, 1)
    network.forward = lambda left, right: network._conv_forward(left, network.weight, network.bias)
    before = images(network, "left", "right")
    after = build_in_preprocessing(before, {"left": RULE, "right": RULE})
    x = pixels()
    assert error(after.run(x, x)[0], before.run(normalised(x), x)[0]) <= BOUND
