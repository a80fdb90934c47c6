from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, operations, relative_l2, skip_reasons
from optimize_cases import noise, same, wrong_records
from torch import Tensor, nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import move_affine as rule
from deploykit.graph.passes.move_affine import move_affine

IMAGE = (1, 4, 8, 6)


def _bilinear(x: Tensor, *, aligned: bool = False) -> Tensor:
    return F.interpolate(x, (11, 9), mode="bilinear", align_corners=aligned)


def _two_readers(m: Calls, x: Tensor) -> Tensor:
    y = m.norm(m.a(x))
    return m.valid(y) + m.point(y)[:, :, 1:-1, 1:-1]


def _read_before(m: Calls, x: Tensor) -> Tensor:
    y = m.a(x)
    return m.norm(y).relu() + y


def _norm(x: Tensor, m: Calls) -> Tensor:
    return m.norm(x).relu()


CASES = {
    "convolution": lambda m, x: _norm(m.a(x), m),
    "convolution in two groups": lambda m, x: _norm(m.grouped(x), m),
    "transposed": lambda m, x: _norm(m.up(x), m),
    "transposed in groups": lambda m, x: _norm(m.up_grouped(x), m),
    "bilinear": lambda m, x: _norm(_bilinear(m.a(x)), m),
    "bilinear aligned": lambda m, x: _norm(_bilinear(m.a(x), aligned=True), m),
    "nearest": lambda m, x: _norm(F.interpolate(m.a(x), scale_factor=2), m),
    "average pooling": lambda m, x: _norm(F.avg_pool2d(m.a(x), 2), m),
    "average pooling without its padding": lambda m, x: _norm(
        F.avg_pool2d(m.a(x), 3, 2, 1, count_include_pad=False), m
    ),
    "average pooling rounded up": lambda m, x: _norm(F.avg_pool2d(m.a(x), 3, 2, ceil_mode=True), m),
    "adaptive pooling": lambda m, x: _norm(F.adaptive_avg_pool2d(m.a(x), (3, 4)), m),
    "mean": lambda m, x: _norm(m.a(x).mean((-1, -2), keepdim=True), m),
    "max pooling": lambda m, x: F.relu(F.max_pool2d(m.a(x), 3, 2, 1) * m.factor.abs() + m.shift),
    "two parts": lambda m, x: m.wide_norm(torch.cat([m.a(x), m.b(x)], 1)).relu(),
    "sum": lambda m, x: _norm(m.a(x) + m.b(x), m),
    "difference": lambda m, x: _norm(m.a(x) - m.up(F.avg_pool2d(x, 2)), m),
    "shift of a sum": lambda m, x: F.relu(x.exp() + m.a(x) + m.shift),
    "shift of a difference": lambda m, x: F.relu(x.exp() - m.a(x) - m.shift),
    "after, without padding": lambda m, x: m.valid(m.norm(x)),
    "after, in groups": lambda m, x: m.grouped(m.norm(x)),
    "after, with padding but no shift": lambda m, x: m.a(x * m.factor),
    "two readers": _two_readers,
    "two in a row": lambda m, x: m.grouped(m.norm(x) * m.factor - 3.0),
    "constant (1,C,1,1)": lambda m, x: m.grouped(m.factor[None] * x),
    "number first": lambda m, x: m.grouped(1.5 - x),
    "divided": lambda m, x: m.grouped(x / m.factor),
}
# Where the map stays, and why.
KEPT = {
    "shift before padding": (lambda m, x: m.a(m.norm(x)), "it stands between an input and aten.conv2d.default"),
    "padding counted": (lambda m, x: _norm(F.avg_pool2d(m.a(x), 3, 1, 1), m), "between aten.avg_pool2d.default"),
    "divisor": (lambda m, x: _norm(F.avg_pool2d(m.a(x), 2, divisor_override=3), m), "between aten.avg_pool2d.default"),
    "negative scale before a maximum": (
        lambda m, x: F.relu(-F.max_pool2d(m.a(x), 2)),
        "between aten.max_pool2d.default",
    ),
    "slopes": (lambda m, x: _norm(m.slope(m.a(x)), m), "between aten.prelu.default and aten.relu.default"),
    "second reader of the convolution": (_read_before, "between aten.conv2d.default and aten.relu.default"),
    "same value twice": (lambda m, x: m.wide_norm(_twice(m.a(x))).relu(), "between aten.cat.default"),
    "sum of unknowns": (lambda m, x: _norm(x.exp() + x.sigmoid(), m), "between aten.add.Tensor"),
    "one side of a sum unknown": (lambda m, x: _norm(x.exp() + m.a(x), m), "between aten.add.Tensor"),
    "border of ones": (lambda m, x: _norm(F.pad(m.a(x), [1, 1, 1, 1], value=1.0), m), "between aten."),
    "bicubic": (lambda m, x: _norm(F.interpolate(m.a(x), (9, 9), mode="bicubic"), m), "between aten."),
}


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x], 1)


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**CASES, **{name: forward for name, (forward, _) in KEPT.items()}}
    networks = {
        name: Calls(
            forward, a=nn.Conv2d(4, 4, 3, padding=1), b=nn.Conv2d(4, 4, 1, bias=False), valid=nn.Conv2d(4, 4, 3),
            point=nn.Conv2d(4, 4, 1), grouped=nn.Conv2d(4, 4, 1, groups=2), up=nn.ConvTranspose2d(4, 4, 2, 2),
            up_grouped=nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=2), norm=nn.BatchNorm2d(4),
            wide_norm=nn.BatchNorm2d(8), slope=nn.PReLU(4), factor=nn.Parameter(torch.empty(4, 1, 1)),
            shift=nn.Parameter(torch.empty(4, 1, 1)),
        )
        for name, forward in forwards.items()
    }  # fmt: skip
    return captured_together(networks, *IMAGE)


MAPS = ("batch_norm", "mul", "sub", "div", "rsub")


def _maps(graph: Graph) -> int:
    """How many maps are left: constants only, since each case adds or multiplies values at most once."""
    found = operations(graph)
    return sum(found[name] for name in MAPS)


@pytest.mark.parametrize("name", CASES)
def test_the_map_goes_into_the_layers(name, graphs):
    before = graphs[name]
    after = move_affine(before)
    values_apart = int(name in ("difference", "shift of a difference"))
    assert _maps(after) == values_apart
    assert operations(after)["add"] == int(name in ("sum", "shift of a sum", "two readers"))
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    again = move_affine(after)
    assert same(again, after)
    assert not again.reports[-1].fired


@pytest.mark.parametrize("name", KEPT)
def test_what_no_layer_takes_stays_with_the_reason(name, graphs):
    before = graphs[name]
    after = move_affine(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    assert any(KEPT[name][1] in reason for reason in skip_reasons(after, rule.NAME))
    assert {one.detail for one in after.reports[-1].fired} <= {rule.STATISTICS}


def test_a_batch_norm_of_a_concatenation_is_split(graphs):
    """The part that no layer takes keeps a BatchNorm, on its own values alone."""
    graph = captured_together(
        {
            "parts": Calls(
                lambda m, x: m.norm(torch.cat([m.a(x), x.exp()], 1)).relu(),
                a=nn.Conv2d(4, 4, 1),
                norm=nn.BatchNorm2d(8),
            )
        },
        *IMAGE,
    )["parts"]
    after = move_affine(graph)
    (left,) = after.module.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    assert tuple(left.meta["val"].shape) == IMAGE
    assert relative_l2(graph, after, *IMAGE) <= BOUND
    assert not wrong_records(graph, after, noise(*IMAGE))
    assert same(move_affine(after), after)


def test_a_scale_of_zero_is_recorded_as_lost(graphs):
    before = graphs["bilinear"].copy()
    (norm,) = before.module.graph.find_nodes(op="call_function", target=torch.ops.aten.batch_norm.default)
    before.module.get_parameter(str(norm.args[1].target)).data[1] = 0
    after = move_affine(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))


@pytest.mark.parametrize("part", ["scale", "shift"])
@pytest.mark.parametrize(
    "name", ["bilinear", "sum", "two parts", "transposed in groups", "after, in groups", "max pooling"]
)
def test_a_lost_scale_or_shift_is_caught(name, part, graphs, monkeypatch):
    """The twin of the bound: scale 1 or shift 0 where it is not."""
    read = rule.read_step

    def damaged(module, node):
        found = read(module, node)
        if found is None or not isinstance(found.operation, rule.Affine):
            return found
        neutral = torch.full_like(found.operation.shift, float(part == "scale"))
        return replace(found, operation=replace(found.operation, **{part: neutral}))

    monkeypatch.setattr(rule, "read_step", damaged)
    assert relative_l2(graphs[name], move_affine(graphs[name]), *IMAGE) > 1e-3


def test_the_border_would_be_wrong(graphs, monkeypatch):
    """The twin of the refusal: a shift moved into a convolution that pads is wrong along its border."""
    monkeypatch.setattr(rule, "pads", lambda node: False)
    before = graphs["shift before padding"]
    assert relative_l2(before, move_affine(before), *IMAGE) > 1e-3


def test_the_padding_counted_would_be_wrong(graphs, monkeypatch):
    monkeypatch.setattr(rule, "_averages", lambda value: rule.is_call(value, torch.ops.aten.avg_pool2d.default))
    for name in ("padding counted", "divisor"):
        assert relative_l2(graphs[name], move_affine(graphs[name]), *IMAGE) > 1e-3
