"""The small exact lowerings that only some targets want, each over its parameters."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured, captured_together, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import adaptive_max_pooling as adaptive
from deploykit.graph.passes import circular_padding as circular
from deploykit.graph.passes import plain_transposed_convolution as transposed
from deploykit.graph.passes.adaptive_max_pooling import adaptive_max_pooling
from deploykit.graph.passes.average_pooling_divisor import average_pooling_divisor
from deploykit.graph.passes.ceil_average_pooling import ceil_average_pooling
from deploykit.graph.passes.circular_padding import circular_padding
from deploykit.graph.passes.gelu_by_tanh import gelu_by_tanh
from deploykit.graph.passes.nearest_by_index import nearest_by_index
from deploykit.graph.passes.pixel_unshuffle_as_convolution import pixel_unshuffle_as_convolution
from deploykit.graph.passes.plain_transposed_convolution import plain_transposed_convolution
from deploykit.graph.passes.reciprocal_as_division import reciprocal_as_division
from deploykit.graph.passes.resize_as_products import resize_as_products

IMAGE = (1, 4, 11, 14)
# Kernel, stride, padding: windows that hang over in one axis, in both, in none, and ones that PyTorch drops.
WINDOWS = [
    (2, 2, 0),
    (2, 3, 1),
    (3, 1, 1),
    (3, 2, 0),
    (3, 2, 1),
    (3, 3, 1),
    (5, 2, 2),
    ((3, 2), (2, 3), (1, 0)),
    (3, (2, 3), 1),
    (4, None, 2),
]
# Kernel, stride, padding, output padding, groups, dilation.
TRANSPOSED = [
    (3, 2, 1, 1, 1, 1),
    (3, 2, 1, 1, 4, 1),
    (5, 3, 0, 2, 2, 1),
    (3, 2, 1, 0, 1, 2),
    (3, 3, 2, 2, 2, 3),
    ((3, 2), (2, 3), (1, 0), (0, 2), 1, (2, 1)),
    (3, 2, 1, 0, 4, 1),
    (3, 1, 2, 0, 1, 1),
]
PADS = [(2, 2, 1, 1), (0, 3, 0, 0), (13, 0, 0, 10), (0, 0, 2, 0)]


def assert_rewritten(before: Graph, rule) -> Graph:
    """Assert that ``rule`` changes no value, says what it did, records true shapes, and finds nothing twice."""
    untouched = operations(before)
    after = rule(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert operations(before) == untouched
    assert len(after.reports[-1].fired) == 1
    assert not rule(after).reports[-1].fired
    x = torch.zeros(IMAGE, dtype=torch.float64)
    recorded = [tuple(n.meta["val"].shape) for n in after.module.graph.nodes if n.op == "call_function"]
    computed = _shapes(after, x)
    assert recorded == computed
    return after


def _shapes(graph: Graph, x: torch.Tensor) -> list[tuple[int, ...]]:
    found = []

    class Interpreter(torch.fx.Interpreter):
        def call_function(self, target, args, kwargs):
            result = super().call_function(target, args, kwargs)
            found.append(tuple(result.shape))
            return result

    Interpreter(graph.module).run(x)
    return found


def _pool(window, include, divisor):
    return lambda m, x: F.avg_pool2d(x, *window, True, include, divisor)


@pytest.fixture(scope="module")
def pools() -> dict[str, Graph]:
    cases = {
        f"{window} {include} {divisor}": _pool(window, include, divisor)
        for window in WINDOWS
        for include in (True, False)
        for divisor in (None, 5)
    }
    return captured_together({name: Calls(call) for name, call in cases.items()}, *IMAGE)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_average_pooling_that_rounds_up(pools, window, include):
    after = assert_rewritten(pools[f"{window} {include} None"], ceil_average_pooling)
    (pooled,) = [node for node in after.module.graph.nodes if "avg_pool2d" in str(node.target)]
    assert len(pooled.args) == 3, "neither padding nor rounding up is left"


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_average_pooling_with_a_divisor(pools, window, include):
    graph = pools[f"{window} {include} 5"]
    assert not ceil_average_pooling(graph).reports[-1].fired, "the divisor is another pass's"
    assert_rewritten(graph, average_pooling_divisor)


def test_pooling_that_is_plain_stays():
    graph = captured(Calls(lambda m, x: F.avg_pool2d(x, 3, 2, 1)), *IMAGE)
    for rule in (ceil_average_pooling, average_pooling_divisor):
        after = rule(graph)
        assert operations(after) == operations(graph)
        assert not after.reports[-1].fired
    # A window that hangs over divides by fewer values than one inside: the negative twin of the factors.
    over = captured(Calls(lambda m, x: F.avg_pool2d(x, 3, 3, 0, True)), *IMAGE)
    zeros = captured(Calls(lambda m, x: F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 3, 0)), *IMAGE)
    assert relative_l2(over, zeros, *IMAGE) > 0.05


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolution_with_zeros_in_its_kernel(case):
    kernel, stride, padding, further, groups, dilation = case
    layer = nn.ConvTranspose2d(4, 8, kernel, stride, padding, further, groups, dilation=dilation)
    after = assert_rewritten(captured(layer, *IMAGE), plain_transposed_convolution)
    (call,) = [node for node in after.module.graph.nodes if "conv_transpose2d" in str(node.target)]
    assert call.args[5] == [0, 0]
    assert len(call.args) == 7, "dilation 1"
    rewritten = kernel != 3 or further or dilation != 1
    assert ("plain_weight" in dict(after.module.named_parameters())) == bool(rewritten)
    kernel_size = call.args[1].meta["val"].shape[2:]
    cropped = call.args[4] == [0, 0] and padding != 0
    assert operations(after).get("slice", 0) == (2 if cropped else 0)
    halves = [2 * cut == taps - step for cut, taps, step in zip(call.args[4], kernel_size, call.args[3], strict=True)]
    assert call.args[4] == [0, 0] or all(halves)


def test_zeros_on_the_wrong_side_of_the_kernel_are_wrong():
    layer = nn.ConvTranspose2d(4, 8, 3, 2, 1, 1)
    graph = captured(layer, *IMAGE)
    after = plain_transposed_convolution(graph)
    weight = after.module.get_parameter("plain_weight")
    weight.data = weight.data.roll((1, 1), (2, 3))
    assert relative_l2(graph, after, *IMAGE) > 0.1


def test_transposed_convolution_that_is_plain_or_of_a_computed_weight_stays():
    plain = captured(nn.ConvTranspose2d(4, 8, 4, 2, 1), *IMAGE)
    assert not plain_transposed_convolution(plain).reports[-1].fired
    computed = captured(
        Calls(lambda m, x: F.conv_transpose2d(x, x[0, :, None, :3, :3], None, 2, 1, 1, 4)),
        *IMAGE,
    )
    after = plain_transposed_convolution(computed)
    assert skip_reasons(after, transposed.NAME) == [transposed.COMPUTED]
    assert operations(after) == operations(computed)


@pytest.mark.parametrize("widths", PADS, ids=str)
def test_circular_padding_as_slices(widths):
    graph = captured(Calls(lambda m, x: F.pad(x, widths, mode="circular") * 1.5), *IMAGE)
    after = assert_rewritten(graph, circular_padding)
    assert "pad" not in operations(after)
    swapped = [*widths[1::-1], *widths[:1:-1]][: len(widths)]
    if swapped != list(widths):
        other = captured(Calls(lambda m, x: F.pad(x, swapped, mode="circular") * 1.5), *IMAGE)
        assert relative_l2(other, after, *IMAGE) > 0.1


def test_other_padding_stays_and_cropping_is_left_alone():
    reflect = captured(Calls(lambda m, x: F.pad(x, (1, 1, 1, 1), mode="reflect")), *IMAGE)
    assert not circular_padding(reflect).reports[-1].fired
    crops = captured(Calls(lambda m, x: F.pad(x, (-1, 2, 0, 0), mode="circular")), *IMAGE)
    assert skip_reasons(circular_padding(crops), circular.NAME) == [circular.CROPS]


def test_gelu_by_tanh_is_written_out_and_the_exact_one_stays():
    graph = captured(Calls(lambda m, x: F.gelu(x, approximate="tanh")), *IMAGE)
    after = assert_rewritten(graph, gelu_by_tanh)
    assert "gelu" not in operations(after)
    exact = captured(Calls(lambda m, x: F.gelu(x)), *IMAGE)
    assert not gelu_by_tanh(exact).reports[-1].fired
    assert relative_l2(exact, after, *IMAGE) > 1e-5


@pytest.mark.parametrize("size", [1, 7, (11, 2), (5, 9), (3, None), (4, 1)], ids=str)
def test_adaptive_max_pooling(size):
    graph = captured(Calls(lambda m, x: F.adaptive_max_pool2d(x, size)), *IMAGE)
    after = assert_rewritten(graph, adaptive_max_pooling)
    assert "adaptive_max_pool2d" not in operations(after)
    assert ("max_pool2d" in operations(after)) == (size in (1, (11, 2))) == ("amax" not in operations(after))


def test_adaptive_max_pooling_whose_positions_are_read_stays():
    both = captured(Calls(lambda m, x: F.adaptive_max_pool2d(x, 2, True)), *IMAGE, outputs=("values", "positions"))
    after = adaptive_max_pooling(both)
    assert skip_reasons(after, adaptive.NAME) == [adaptive.INDICES]
    assert operations(after) == operations(both)


RESIZED = [
    {"mode": "bicubic", "size": (17, 9), "align_corners": False},
    {"mode": "bicubic", "size": (17, 9), "align_corners": True},
    {"mode": "bicubic", "scale_factor": 1.7, "align_corners": False},
    {"mode": "bicubic", "size": (5, 6), "align_corners": False, "antialias": True},
    {"mode": "bilinear", "size": (5, 30), "align_corners": False, "antialias": True},
    {"mode": "bilinear", "scale_factor": 2.3, "align_corners": False},
    {"mode": "bilinear", "scale_factor": (2, 0.3), "align_corners": False},
    {"mode": "nearest-exact", "size": (17, 9)},
    {"mode": "nearest-exact", "scale_factor": 1.7},
]
KEPT = [
    {"mode": "bilinear", "scale_factor": 2, "align_corners": False},
    {"mode": "bilinear", "scale_factor": 2.3, "align_corners": True},
    {"mode": "bilinear", "size": (17, 9), "align_corners": False},
    {"mode": "nearest", "size": (17, 9)},
]
NEAREST = [
    {"mode": "nearest", "size": (17, 9)},
    {"mode": "nearest", "size": (22, 29)},
    {"mode": "nearest", "scale_factor": 1.7},
    {"mode": "nearest-exact", "size": (17, 9)},
    {"mode": "nearest-exact", "scale_factor": (0.4, 2)},
]


def _resized(options: dict) -> Graph:
    return captured(Calls(lambda m, x: F.interpolate(x, **options)), *IMAGE)


@pytest.mark.parametrize("options", RESIZED, ids=str)
def test_resizing_as_products(options):
    after = assert_rewritten(_resized(options), resize_as_products)
    assert operations(after) == {"linear": 2, "transpose": 2}


@pytest.mark.parametrize("options", KEPT, ids=str)
def test_resizing_that_targets_have_stays(options):
    graph = _resized(options)
    after = resize_as_products(graph)
    assert operations(after) == operations(graph)
    assert not after.reports[-1].fired


def test_samples_placed_by_the_sizes_are_elsewhere():
    by_factor = _resized({"mode": "bilinear", "scale_factor": 2.3, "align_corners": False})
    by_size = _resized({"mode": "bilinear", "size": (25, 32), "align_corners": False})
    assert relative_l2(by_factor, by_size, *IMAGE) > 0.01


@pytest.mark.parametrize("options", NEAREST, ids=str)
def test_nearest_resizing_by_index(options):
    after = assert_rewritten(_resized(options), nearest_by_index)
    assert operations(after) == {"index_select": 2}
    index = after.module.get_parameter("rows")
    index.data = index.data.roll(1)
    assert relative_l2(_resized(options), after, *IMAGE) > 0.1


def test_nearest_resizing_by_whole_numbers_stays():
    graph = _resized({"mode": "nearest", "scale_factor": (2, 3)})
    assert not nearest_by_index(graph).reports[-1].fired


def test_pixel_unshuffle_as_a_convolution():
    graph = captured(Calls(lambda m, x: F.pixel_unshuffle(x[:, :, :10], 2)), *IMAGE)
    after = assert_rewritten(graph, pixel_unshuffle_as_convolution)
    assert operations(after) == {"slice": 1, "conv2d": 1}
    kernels = after.module.get_parameter("picks")
    kernels.data = kernels.data.transpose(2, 3).contiguous()
    assert relative_l2(graph, after, *IMAGE) > 0.1


def test_a_reciprocal_as_a_division():
    graph = captured(Calls(lambda m, x: 1 / (x.abs() + 0.5)), *IMAGE)
    after = assert_rewritten(graph, reciprocal_as_division)
    assert "reciprocal" not in operations(after)
    with_epsilon = captured(Calls(lambda m, x: 1 / (x.abs() + 0.5 + 1e-4)), *IMAGE)
    assert relative_l2(with_epsilon, after, *IMAGE) > 1e-5
