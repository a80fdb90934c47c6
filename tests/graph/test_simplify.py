from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from graph_cases import BOUND, Calls, RepVGG, captured, captured_together, operations, relative_l2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from deploykit.errors import RecipeError
from deploykit.graph.capture import capture
from deploykit.graph.graph import Graph
from deploykit.graph.passes.drop_unused_outputs import drop_unused_outputs
from deploykit.graph.passes.fold_batch_norm import fold_batch_norm
from deploykit.graph.passes.merge_branches import merge_branches
from deploykit.graph.passes.remove_no_ops import remove_no_ops
from deploykit.graph.simplify import PASSES, simplify
from deploykit.models.rcrnet import RCRNet
from deploykit.models.sinet import SINet

IMAGE = (1, 3, 64, 64)


def _counts(graph: Graph) -> dict[str, tuple[int, int]]:
    return {name: (len(graph.report(name).fired), len(graph.report(name).skipped)) for name in PASSES}


@pytest.fixture(scope="module")
def sinet() -> Graph:
    return captured(SINet(), *IMAGE, outputs=["logits"])


@pytest.fixture(scope="module")
def rcrnet() -> Graph:
    return captured(RCRNet(), *IMAGE, outputs=["logits", "edge"])


def test_sinet(sinet):
    after = simplify(sinet, keep_outputs=None)
    assert _counts(after) == {
        "remove_no_ops": (0, 0),
        "drop_unused_outputs": (0, 0),
        "fold_batch_norm": (38, 20),
        "merge_branches": (0, 9),
    }
    reasons = after.report("fold_batch_norm").reasons()
    assert {reason.rpartition(" ")[2]: count for reason, count in reasons.items()} == {
        "aten.add.Tensor": 8,
        "aten.cat.default": 4,
        "aten.upsample_bilinear2d.vec": 8,
    }
    folded = [fired.modules for fired in after.report("fold_batch_norm").fired]
    assert ("encoder.level3.2.d1.conv.0", "encoder.level3.2.d1.conv.1") in folded
    assert operations(after)["conv2d"] == 58
    assert relative_l2(sinet, after, *IMAGE) <= BOUND


def test_rcrnet(rcrnet):
    after = simplify(rcrnet, keep_outputs=["logits"])
    counts = _counts(after)
    assert counts["drop_unused_outputs"] == (1, 0)
    assert counts["fold_batch_norm"] == (87, 0)
    assert counts["merge_branches"][0] == 22
    assert operations(after)["conv2d"] == 63
    stages = Counter(fired.modules[0].split(".")[0] for fired in after.report("merge_branches").fired)
    assert stages == {"stage1": 2, "encoder": 8, "decoder": 10, "bypass1": 1, "bypass2": 1}
    assert relative_l2(rcrnet, after, *IMAGE) <= BOUND


@pytest.mark.parametrize("name", ["sinet", "rcrnet"])
def test_a_second_run_changes_nothing(name, request):
    once = simplify(request.getfixturevalue(name), keep_outputs=None)
    twice = simplify(once, keep_outputs=None)
    assert [len(report.fired) for report in twice.reports[len(PASSES) :]] == [0, 0, 0, 0]
    assert twice.module.code == once.module.code
    assert twice.module.state_dict().keys() == once.module.state_dict().keys()


def test_it_is_deterministic_and_equals_the_passes_one_by_one(rcrnet):
    first, second = (simplify(rcrnet, keep_outputs=["logits"]) for _ in range(2))
    apart = merge_branches(fold_batch_norm(drop_unused_outputs(remove_no_ops(rcrnet), ["logits"])))
    assert first.reports == second.reports == apart.reports
    assert first.module.code == second.module.code
    assert operations(first) == operations(apart)
    assert relative_l2(first, apart, *IMAGE) == 0
    for name, value in first.module.state_dict().items():
        assert torch.equal(value, second.module.state_dict()[name])


def test_the_input_graph_is_untouched(rcrnet):
    code, count = rcrnet.module.code, len(rcrnet.module.state_dict())
    held = {name: value.clone() for name, value in rcrnet.module.state_dict().items()}
    simplify(rcrnet, keep_outputs=["logits"])
    assert rcrnet.module.code == code
    assert len(rcrnet.module.state_dict()) == count
    assert all(torch.equal(held[name], value) for name, value in rcrnet.module.state_dict().items())


def test_folding_and_merging_feed_each_other():
    network = Calls(
        lambda m, x: m.norm(m.a(y := F.relu(m.norm(m.a(x) + x))) + y),
        a=nn.Conv2d(4, 4, 3, padding=1),
        norm=nn.BatchNorm2d(4),
    )
    shape = (1, 4, 8, 8)
    before = captured(network, *shape)
    after = simplify(before, keep_outputs=None)
    assert operations(after) == {"conv2d": 2, "relu": 1}
    assert len(after.report("fold_batch_norm").fired) == 2
    assert len(after.report("merge_branches").fired) == 2
    assert relative_l2(before, after, *shape) <= BOUND


def test_an_unknown_output_is_refused(sinet):
    with pytest.raises(RecipeError, match="logits"):
        simplify(sinet, keep_outputs=["mask"])


def test_the_simplified_graph_can_be_captured_again():
    before = captured(RepVGG(4), 1, 4, 8, 8)
    after = simplify(before, keep_outputs=None)
    again = capture(after.module.eval(), [torch.zeros(1, 4, 8, 8, dtype=torch.float64)], (), ["out"])
    assert relative_l2(after, again, 1, 4, 8, 8) == 0


CHANNELS = 4


@st.composite
def _branch(draw: st.DrawFn, stride: int) -> nn.Sequential:
    """One branch of ``stride`` with the output size of every other one."""
    size, dilation = draw(st.sampled_from([(1, 1), (3, 1), (5, 1), (3, 2)]))
    groups, bias = draw(st.sampled_from([1, 2, CHANNELS])), draw(st.booleans())
    reach = {"padding": dilation * (size // 2), "dilation": dilation}
    kinds = {
        "conv": lambda: [nn.Conv2d(CHANNELS, CHANNELS, size, stride, groups=groups, bias=bias, **reach)],
        "point": lambda: [nn.Conv2d(CHANNELS, CHANNELS, 1, stride, groups=groups, bias=bias)],
        "pool": lambda: [nn.AvgPool2d(3, stride, 1, count_include_pad=bias)],
        "chain": lambda: [
            nn.Conv2d(CHANNELS, CHANNELS, 1, stride, groups=groups, bias=bias),
            nn.BatchNorm2d(CHANNELS, affine=bias),
            nn.Conv2d(CHANNELS, CHANNELS, size, bias=False, **reach),
        ],
    }
    if stride == 1:
        kinds |= {"identity": lambda: [], "norm": lambda: [nn.BatchNorm2d(CHANNELS)]}
    layers = kinds[draw(st.sampled_from(sorted(kinds)))]()
    return nn.Sequential(*layers, *([nn.BatchNorm2d(CHANNELS)] if draw(st.booleans()) else []))


@st.composite
def _sum(draw: st.DrawFn) -> nn.Module:
    """Two to four parallel branches, added, subtracted or halved; not all of them need to fit together."""
    stride = draw(st.sampled_from([1, 2]))
    branches = draw(st.lists(_branch(stride), min_size=2, max_size=4))
    factors = [draw(st.sampled_from([1, -1, 0.5])) for _ in branches]

    def forward(m: Calls, x: Tensor) -> Tensor:
        return F.relu(sum(factor * branch(x) for factor, branch in zip(factors, m.branches, strict=True)))

    return Calls(forward, branches=nn.ModuleList(branches))


@settings(max_examples=3, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(sums=st.lists(_sum(), min_size=6, max_size=6))
def test_any_sum_of_branches_stays_equivalent(sums):
    shape = (1, CHANNELS, 9, 8)
    for before in captured_together({f"sum{i}": one for i, one in enumerate(sums)}, *shape).values():
        after = simplify(before, keep_outputs=None)
        assert relative_l2(before, after, *shape) <= BOUND
        again = simplify(after, keep_outputs=None)
        assert not any(report.fired for report in again.reports[len(PASSES) :])
