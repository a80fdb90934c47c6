from __future__ import annotations

import pytest
import torch.nn.functional as F
from graph_cases import BOUND, Calls, captured_together, relative_l2, skip_reasons
from optimize_cases import noise, same, work, wrong_records
from torch import Tensor, nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import commute_resize as rule
from deploykit.graph.passes.commute_resize import commute_resize

IMAGE = (1, 4, 8, 6)


def _up(x: Tensor, *, aligned: bool = False) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=aligned)


def _down(x: Tensor) -> Tensor:
    return F.interpolate(x, (4, 3), mode="bilinear")


def _nearest(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2)


def _read_twice(m: Calls, x: Tensor) -> Tensor:
    y = _up(x)
    return m.fewer(y) + y.sum((1, 2, 3), keepdim=True)


CASES = {
    "fewer channels after bilinear": lambda m, x: m.fewer(_up(x)),
    "aligned corners": lambda m, x: m.fewer(_up(x, aligned=True)),
    "as many channels": lambda m, x: m.same(_up(x)),
    "nearest": lambda m, x: m.same(_nearest(x)),
    "more channels after nearest": lambda m, x: m.more(_nearest(x)),
    "groups": lambda m, x: m.grouped(_up(x)),
    "smaller first": lambda m, x: _down(m.same(x)),
    "between activations": lambda m, x: F.relu(m.fewer(_up(F.relu(x)))),
}
REFUSED = {
    "cheaper as it is": (lambda m, x: _up(m.fewer(x)), "it is cheaper as it is"),
    "cheaper as it is, nearest": (lambda m, x: _nearest(m.more(x)), "it is cheaper as it is"),
    "another reader": (_read_twice, "another reader"),
    "kernel": (lambda m, x: m.kernel(_up(x)), None),
    "stride": (lambda m, x: m.strided(_up(x)), None),
    "padding": (lambda m, x: m.padded(_up(x)), None),
    "bicubic": (lambda m, x: m.fewer(F.interpolate(x, (9, 9), mode="bicubic")), None),
    "activation between": (lambda m, x: m.fewer(F.relu(_up(x))), None),
}


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**CASES, **{name: forward for name, (forward, _) in REFUSED.items()}}
    networks = {
        name: Calls(
            forward, fewer=nn.Conv2d(4, 2, 1), same=nn.Conv2d(4, 4, 1, bias=False), more=nn.Conv2d(4, 9, 1),
            grouped=nn.Conv2d(4, 4, 1, groups=2), kernel=nn.Conv2d(4, 2, 3), strided=nn.Conv2d(4, 2, 1, 2),
            padded=nn.Conv2d(4, 2, 1, padding=1),
        )
        for name, forward in forwards.items()
    }  # fmt: skip
    return captured_together(networks, *IMAGE)


@pytest.mark.parametrize("name", CASES)
def test_the_cheaper_order_is_taken(name, graphs):
    before = graphs[name]
    after = commute_resize(before)
    assert len(after.reports[-1].fired) == 1
    assert relative_l2(before, after, *IMAGE) <= BOUND
    assert not wrong_records(before, after, noise(*IMAGE))
    assert work(after) < work(before)
    again = commute_resize(after)
    assert same(again, after)
    assert not again.reports[-1].fired


@pytest.mark.parametrize("name", REFUSED)
def test_other_pairs_stay(name, graphs):
    before = graphs[name]
    after = commute_resize(before)
    assert not after.reports[-1].fired
    assert work(after) == work(before)
    assert relative_l2(before, after, *IMAGE) <= BOUND
    reason = REFUSED[name][1]
    assert reason is None or any(reason in found for found in skip_reasons(after, rule.NAME))


def test_a_convolution_that_pads_would_be_wrong(graphs, monkeypatch):
    """The twin of the refusal: before the resize its border is resized too."""
    monkeypatch.setattr(rule, "pads", lambda node: False)
    before = graphs["padding"]
    after = commute_resize(before)
    (truth,), (value,) = before.run(noise(*IMAGE)), after.run(noise(*IMAGE))
    assert value.shape != truth.shape


def test_a_lost_bias_is_caught(graphs):
    """The twin of the bound."""
    before = graphs["fewer channels after bilinear"]
    after = commute_resize(before)
    next(p for path, p in after.module.named_parameters() if path.endswith("bias")).data.zero_()
    assert relative_l2(before, after, *IMAGE) > 1e-3
