from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from graph_cases import Calls, captured, captured_together, operations, relative_l2, skip_reasons
from torch import nn

from deploykit.graph.graph import Graph
from deploykit.graph.passes import remove_no_ops as rule
from deploykit.graph.passes.remove_no_ops import remove_no_ops

IMAGE = (1, 4, 6, 6)
NO_OPS = {
    "dropout": lambda m, x: nn.Dropout2d().eval()(m.drop(m.conv(x))),
    "identity": lambda m, x: nn.Identity()(nn.Sequential()(m.conv(x))),
    "copies": lambda m, x: m.conv(x).clone().contiguous().detach(),
    "conversion": lambda m, x: m.conv(x).to(torch.float32).float().to(x.device),
    "shapes": lambda m, x: m.conv(x).view(1, 4, 6, 6).reshape(1, -1, 6, 6).expand(1, 4, -1, 6).squeeze(1),
    "orders": lambda m, x: m.conv(x).permute(0, 1, -2, 3).transpose(2, -2),
    "arithmetic": lambda m, x: 1 * ((0 + m.conv(x) - 0) / 1),
    "padding": lambda m, x: F.pad(F.pad(m.conv(x), (0, 0)), (0, 0, 0, 0), "reflect"),
    "slices": lambda m, x: m.conv(x)[:, :4, 0:, -6:],
    "one tensor": lambda m, x: torch.cat([m.conv(x)], 1),
    "interpolation": lambda m, x: F.interpolate(
        F.interpolate(m.conv(x), size=(6, 6)), scale_factor=1.0, mode="bilinear", align_corners=False
    ),
}
KEPT = {
    "copy to another order": (lambda m, x: m.conv(x).transpose(1, 2).contiguous() * 2, "clone"),
    "conversion": (lambda m, x: (m.conv(x) > 0).float() * 2, "_to_copy"),
    "crop and pad": (lambda m, x: F.pad(m.conv(x), (1, -1)), "pad"),
    "broadcast": (lambda m, x: m.conv(x).mean(1, keepdim=True).expand(1, 4, 6, 6), "expand"),
    "scale by two": (lambda m, x: m.conv(x) * 2, "mul"),
    "reversed": (lambda m, x: m.conv(x).transpose(2, 3), "transpose"),
    "strided slice": (lambda m, x: m.conv(x)[:, :, ::2], "slice"),
    "other size": (lambda m, x: F.interpolate(m.conv(x), scale_factor=2.0), "upsample_nearest2d"),
}


def _network(forward: object) -> nn.Module:
    return Calls(forward, conv=nn.Conv2d(4, 4, 1), drop=nn.Dropout())


@pytest.fixture(scope="module")
def graphs() -> dict[str, Graph]:
    forwards = {**NO_OPS, **{f"kept: {name}": forward for name, (forward, _) in KEPT.items()}}
    return captured_together({name: _network(forward) for name, forward in forwards.items()}, *IMAGE)


@pytest.mark.parametrize("name", NO_OPS)
def test_what_changes_nothing_goes(name, graphs):
    before = graphs[name]
    after = remove_no_ops(before)
    assert operations(after) == {"conv2d": 1}
    assert relative_l2(before, after, *IMAGE) == 0
    assert len(after.report(rule.NAME).fired) == sum(operations(before).values()) - 1


@pytest.mark.parametrize("name", KEPT)
def test_what_changes_something_stays(name, graphs):
    before, operation = graphs[f"kept: {name}"], KEPT[name][1]
    after = remove_no_ops(before)
    assert operations(after)[operation] == operations(before)[operation] > 0
    assert relative_l2(before, after, *IMAGE) == 0


def test_interpolation_to_the_same_size_by_another_factor_stays():
    before = captured(
        _network(lambda m, x: F.interpolate(m.conv(x), scale_factor=1.1, mode="bilinear", align_corners=False)), *IMAGE
    )
    after = remove_no_ops(before)
    assert operations(after)["upsample_bilinear2d"] == 1
    assert skip_reasons(after, rule.NAME) == [rule.RESCALED]


def test_a_network_that_does_nothing():
    before = captured(nn.Sequential(nn.Identity(), nn.Dropout()), *IMAGE)
    after = remove_no_ops(before)
    assert not operations(after)
    assert relative_l2(before, after, *IMAGE) == 0
