from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import grid_sample_by_gather as rule
from deploykit.graph.passes.grid_sample_by_gather import grid_sample_by_gather, sample_by_gather

IMAGE = (1, 4, 7, 9)
BORDERS = ("zeros", "border")


def moved(x, *, mode="bilinear", padding_mode="zeros", align_corners=True):
    """``x`` sampled at a finer grid that its own first channels move far out of the image and back."""
    rows, columns = (torch.linspace(-1, 1, size, dtype=x.dtype) for size in (8, 11))
    base = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)
    flow = F.interpolate(x[:, :2], (8, 11), mode="bilinear").permute(0, 2, 3, 1)
    return F.grid_sample(x, base + flow, mode=mode, padding_mode=padding_mode, align_corners=align_corners)


CASES = {
    f"{border}{', corners' * aligned}": (border, aligned)
    for border, aligned in itertools.product(BORDERS, (True, False))
}
KEPT = {
    "nearest": ({"mode": "nearest"}, "the interpolation is not bilinear"),
    "bicubic": ({"mode": "bicubic"}, "the interpolation is not bilinear"),
    "reflection": ({"padding_mode": "reflection"}, "the padding is a reflection"),
}


def _two_images(m, x):
    both = torch.cat([x, x])
    return F.grid_sample(both, both[:, :2].permute(0, 2, 3, 1), align_corners=True)


def _volume(m, x):
    return F.grid_sample(x[:, :, None], x[:, :3].permute(0, 2, 3, 1)[:, None], align_corners=True)


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    networks = {
        name: Calls(lambda m, x, b=border, a=aligned: moved(m.conv(x), padding_mode=b, align_corners=a), conv=_conv())
        for name, (border, aligned) in CASES.items()
    }
    networks |= {
        name: Calls(lambda m, x, options=options: moved(m.conv(x), **options), conv=_conv())
        for name, (options, _) in KEPT.items()
    }
    networks |= {"two images": Calls(_two_images), "volume": Calls(_volume)}
    return captured_together(networks, *IMAGE)


def _conv() -> nn.Module:
    return nn.Conv2d(4, 4, 1)


@pytest.mark.parametrize("name", CASES)
def test_sampling_is_written_out_exactly(graphs, name):
    before = graphs[name]
    text = str(before.module.graph)
    after = grid_sample_by_gather(before)
    found = operations(after)
    assert not found["grid_sampler"]
    assert found["embedding"] == 4
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert len(after.report(rule.NAME).fired) == 1
    assert str(before.module.graph) == text
    assert grid_sample_by_gather(after).reports[-1].fired == ()


@pytest.mark.parametrize("name", [*KEPT, "two images", "volume"])
def test_what_does_not_match_stays(graphs, name):
    reasons = {"two images": "it samples more than one image", "volume": "it samples a volume"}
    after = grid_sample_by_gather(graphs[name])
    assert operations(after)["grid_sampler"] == 1
    assert skip_reasons(after, rule.NAME) == [KEPT[name][1] if name in KEPT else reasons[name]]
    assert relative_l2(graphs[name], after, *IMAGE) <= BOUND


@pytest.mark.parametrize("size", [(5, 6), (1, 6), (5, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize(("border", "aligned"), CASES.values(), ids=CASES)
def test_every_place_of_a_sample(size, border, aligned):
    """On pixels, between them, on the rim of the zeros, and as far outside as numbers go."""
    x = torch.randn(1, 3, *size, dtype=torch.float64)
    rim = 1 + 2 / max(1, size[0] - 1)
    places = torch.tensor([-1e30, -7.0, -rim, -1.3, -1.0, -0.77, 0.0, 1 / 3, 1.0, 1 + 1e-9, rim, 2.9, 1e30])
    grid = torch.stack(torch.meshgrid(places, places, indexing="xy"), -1)[None].double()
    expected = F.grid_sample(x, grid, padding_mode=border, align_corners=aligned)
    found = sample_by_gather(x, grid, zeros=border == "zeros", align_corners=aligned)
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-12
    # The twin: the other rule for corners, or for the border, is another picture.
    if size == (5, 6):
        for zeros, corners in ((border != "zeros", aligned), (border == "zeros", not aligned)):
            other = sample_by_gather(x, grid, zeros=zeros, align_corners=corners)
            assert (other - expected).abs().max() > 1e-2


def test_a_gather_of_the_wrong_row_is_seen(graphs):
    before = graphs["zeros, corners"]
    after = grid_sample_by_gather(before)
    upper, _, lower, _ = after.module.graph.find_nodes(op="call_function", target=torch.ops.aten.embedding.default)
    lower.replace_all_uses_with(upper, delete_user_cb=lambda user: user is not upper)
    after.module.recompile()
    assert relative_l2(before, after, *IMAGE) > 1e-3


def test_recorded_shapes_are_those_that_are_computed(graphs):
    after = grid_sample_by_gather(graphs["zeros"])
    values = {}

    class Recording(torch.fx.Interpreter):
        def run_node(self, n):
            values[n] = super().run_node(n)
            return values[n]

    Recording(after.module).run(torch.randn(*IMAGE, dtype=torch.float64))
    for node, value in values.items():
        if node.op == "call_function" and isinstance(value, torch.Tensor):
            assert node.meta["val"].shape == value.shape, node
            assert node.meta["val"].dtype == value.dtype, node
            assert node.meta.get("nn_module_stack"), node
